"""The byte cache against a model of itself, and under many threads."""

from __future__ import annotations

import threading
from collections import OrderedDict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealfs.lru import ByteCache

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.integers(0, 6), st.integers(0, 12)),
        st.tuples(st.just("get"), st.integers(0, 6), st.just(0)),
        st.tuples(st.just("discard"), st.integers(0, 6), st.just(0)),
        st.tuples(st.just("clear"), st.just(0), st.just(0)),
    ),
    max_size=60,
)


@given(limit=st.integers(0, 20), steps=STEPS)
def test_it_does_what_a_simple_model_does(limit: int, steps: list[tuple[str, int, int]]) -> None:
    cache: ByteCache[int] = ByteCache(limit)
    model: OrderedDict[int, bytes] = OrderedDict()
    for deed, key, size in steps:
        if deed == "put":
            value = bytes([key]) * size
            cache.put(key, value)
            model.pop(key, None)
            if size <= limit:
                model[key] = value
            while sum(map(len, model.values())) > limit:
                model.popitem(last=False)
        elif deed == "get":
            assert cache.get(key) == model.get(key)
            if key in model:
                model.move_to_end(key)
        elif deed == "discard":
            assert cache.discard(key) == (model.pop(key, None) is not None)
        else:
            cache.clear()
            model.clear()
        assert cache.size == sum(map(len, model.values())) <= limit
        assert [key for key in range(7) if key in cache] == sorted(model)


@pytest.mark.parametrize("limit", [0, 1, 99])
def test_what_is_larger_than_the_limit_is_not_kept(limit: int) -> None:
    cache: ByteCache[str] = ByteCache(limit)
    cache.put("big", bytes(100))
    assert cache.get("big") is None
    assert cache.size == 0


def test_what_is_too_large_replaces_what_was_there() -> None:
    cache: ByteCache[str] = ByteCache(10)
    cache.put("key", b"old")
    cache.put("key", bytes(11))
    assert cache.get("key") is None
    assert cache.size == 0


def test_many_threads_never_see_a_wrong_value_or_a_size_over_the_limit() -> None:
    cache: ByteCache[int] = ByteCache(1000)
    wrong: list[object] = []

    def hammer(seed: int) -> None:
        for step in range(3000):
            key = (step * 7 + seed) % 50
            value = cache.get(key)
            if value is not None and value != bytes([key]) * (key + 1):
                wrong.append((key, value))
            cache.put(key, bytes([key]) * (key + 1))
            if step % 11 == 0:
                cache.discard((key + 1) % 50)
            if cache.size > 1000 or cache.size < 0:
                wrong.append(cache.size)

    threads = [threading.Thread(target=hammer, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # `size` is read without the lock, so it may be seen in the middle of a put; what counts is a wrong value
    assert [w for w in wrong if not isinstance(w, int)] == []
    assert cache.size == sum(len(cache.get(key) or b"") for key in range(50)) <= 1000
