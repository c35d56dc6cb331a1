from __future__ import annotations

import pytest

from sealfs.cli.mount_helper import translate


def test_what_fstab_and_mount_8_pass_on() -> None:
    arguments = ["s3://b/p", "/data", "-s", "-v", "-o", "ro,identity=/k", "-o", "allow_other,x-mount.mkdir"]
    assert translate(arguments) == ["mount", "--identity", "/k", "--allow-other", "--", "s3://b/p", "/data"]
    assert translate(["-t", "sealfs", "a", "b", "-o", ""]) == ["mount", "--", "a", "b"]
    assert translate(["a", "b", "-o", "cache_dir=/c,cache_size=1G,cache_memory=0,deadline=5,signer=s"]) == [
        *("mount", "--cache-dir", "/c", "--cache-size", "1G", "--cache-memory", "0", "--deadline", "5"),
        *("--signer", "s", "--", "a", "b"),
    ]


@pytest.mark.parametrize("option", ["password=x", "identity", "identity=", "rw", "uid=5"])
def test_what_it_does_not_know_is_refused(option: str) -> None:
    with pytest.raises(ValueError, match="unknown mount option"):
        translate(["a", "b", "-o", f"ro,{option}"])
