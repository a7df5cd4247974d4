import pytest

from tests.indexer.broken_images import Decoder, broken_images, hostile_images, whole_images

MAX_BYTES = 300 << 20
MAX_SECONDS = 2.0


def decode_all(count: int, seed: int) -> list[tuple[str, str, float, int]]:
    """(image, what became of it, CPU seconds, peak memory) of each; fails where the decoder dies or says nothing."""
    results = []
    with Decoder() as decoder:
        for name, data in broken_images(count, seed):
            try:
                results.append((name, *decoder.read(data)))
            except EOFError as error:
                pytest.fail(f"{name}: {error}")
    return results


def test_the_images_that_are_broken_are_whole_before() -> None:
    with Decoder() as decoder:
        assert {name: decoder.read(data)[0] for name, data in whole_images().items()} == dict.fromkeys(
            whole_images(), "RGB"
        )


def test_the_corpus_is_the_same_every_time_and_another_for_another_seed() -> None:
    made = len(hostile_images())
    first, again, other = ([data for _, data in broken_images(made + 40, seed)] for seed in (1, 1, 2))
    assert first == again
    assert sum(one != two for one, two in zip(first, other, strict=True)) >= 39


@pytest.mark.slow
def test_500_broken_images_neither_crash_nor_fill_the_memory() -> None:
    results = decode_all(500, seed=5)
    assert len(results) == 500
    refused = [result for _, result, _, _ in results if result != "RGB"]
    assert len(refused) > 200
    assert results[-1][3] < MAX_BYTES, max(results, key=lambda each: each[3])


@pytest.mark.long
def test_5000_broken_images_take_two_seconds_and_300_mb_each_at_most() -> None:
    results = decode_all(5000, seed=6)
    assert len(results) == 5000
    slowest = max(results, key=lambda each: each[2])
    assert slowest[2] < MAX_SECONDS, slowest
    assert results[-1][3] < MAX_BYTES, results[-1]
    print(f"slowest {slowest}, peak {results[-1][3] >> 20} MB, {sum(r == 'RGB' for _, r, _, _ in results)} decoded")
