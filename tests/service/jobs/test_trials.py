"""The whole real service: killed in the middle of a job, and measured under a batch. Small; see trials.py."""

from tests.service.jobs.trials import measure_memory, try_kills


def test_a_job_survives_kills_of_the_whole_service() -> None:
    report = try_kills(images=1_200, kills=2, longest_s=0.1)
    assert (report.lost, report.doubled, report.different) == (0, 0, 0)
    assert report.images == 1_200


def test_a_large_batch_needs_no_more_memory_than_a_small_one() -> None:
    report = measure_memory(images=400, side=256)  # 75 MiB of body
    for name, idle in report.idle_bytes.items():
        assert report.peak_bytes[name] - idle < 64 << 20, name
