"""Where objects lie. Stores move opaque bytes and are never trusted with what those bytes say."""
