"""The key broker: releases datasets' keys to what has proven itself, over the KBS protocol, and logs why."""
