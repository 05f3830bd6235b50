"""Both official layouts of CIFAR-10, and what is said of damaged ones."""

import pickle
from pathlib import Path

import numpy as np
import pytest

from tests.training.making import PER_BATCH, write_cifar10
from training.data.cifar10 import RECORD_BYTES, TEST, TRAIN, load_cifar10
from training.data.pickled import BadPickle, read_byte_array, read_pickle
from training.errors import DataMissing


def write_python_layout(binary: Path, root: Path, protocol: int) -> None:
    """The same batches as `binary` has, pickled as the official python archive's are."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    for name in (*TRAIN, *TEST):
        data = (binary / "cifar-10-batches-bin" / f"{name}.bin").read_bytes()
        records = np.frombuffer(data, np.uint8).reshape(-1, RECORD_BYTES)
        batch = {"batch_label": name, "labels": records[:, 0].tolist(), "data": records[:, 1:].copy()}
        (folder / name).write_bytes(pickle.dumps(batch, protocol))


def test_binary_layout_is_read_in_order(tmp_path: Path) -> None:
    training, test = load_cifar10(write_cifar10(tmp_path))
    assert training.images.shape == (5 * PER_BATCH, 32, 32, 3)
    assert test.images.shape == (PER_BATCH, 32, 32, 3)
    assert training.targets[:12].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]
    assert training.labels[3] == "cat"


def test_planes_become_pixels(tmp_path: Path) -> None:
    write_cifar10(tmp_path)
    path = tmp_path / "cifar-10-batches-bin/data_batch_1.bin"
    red, green, blue = (np.full(1024, value, np.uint8).tobytes() for value in (10, 20, 30))
    path.write_bytes(b"\x05" + red + green + blue)
    training, _ = load_cifar10(tmp_path)
    assert training.targets[0] == 5
    assert training.images[0, 17, 4].tolist() == [10, 20, 30]


@pytest.mark.parametrize("protocol", [2, 3, 4], ids=lambda protocol: f"pickle protocol {protocol}")
def test_python_layout_holds_the_same(tmp_path: Path, protocol: int) -> None:
    binary = write_cifar10(tmp_path / "binary")
    write_python_layout(binary, tmp_path / "python", protocol)
    for ours, theirs in zip(load_cifar10(tmp_path / "python"), load_cifar10(binary), strict=True):
        assert np.array_equal(ours.images, theirs.images)
        assert np.array_equal(ours.targets, theirs.targets)


def test_a_batch_as_python_2_wrote_it_is_read() -> None:
    """Opcodes of the official files: protocol 2, byte strings, numpy's old module name."""
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\nq\x01cnumpy\nndarray\nq\x02K\x00\x85U\x01b\x87R"
        b"(K\x01K\x01K\x02\x86cnumpy\ndtype\nq\x03U\x02u1K\x00K\x01\x87R"
        b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x02\x80\xfftb"
    )
    value = read_pickle(b"\x80\x02}q\x00(U\x04dataq\x04" + array + b"U\x06labels]q\x05K\x06au.")
    assert isinstance(value, dict)
    assert value["labels"] == [6]
    assert read_byte_array(value["data"]).tolist() == [[128, 255]]


def test_a_pickle_that_would_run_a_command_only_names_it(tmp_path: Path) -> None:
    witness = tmp_path / "witness"
    value = read_pickle(b"cos\nsystem\n(S'touch %s'\ntR." % str(witness).encode())
    assert "system" in repr(value)
    assert not witness.exists()


@pytest.mark.parametrize("data", [b"", b"no pickle", b"\x80\x02}q\x00(", b"\x80\x02\x8b."], ids=repr)
def test_what_is_no_whole_pickle_is_refused(data: bytes) -> None:
    with pytest.raises(BadPickle):
        read_pickle(data)


def test_absence_names_the_command_that_fetches(tmp_path: Path) -> None:
    with pytest.raises(DataMissing, match=r"python -m training fetch cifar10 --data .*"):
        load_cifar10(tmp_path)


def test_a_missing_batch_is_named(tmp_path: Path) -> None:
    write_cifar10(tmp_path)
    (tmp_path / "cifar-10-batches-bin/data_batch_4.bin").unlink()
    with pytest.raises(DataMissing, match=r"data_batch_4.bin is missing"):
        load_cifar10(tmp_path)


@pytest.mark.parametrize(
    "content", [b"", b"x" * 100, b"\x0b" + bytes(3072)], ids=["empty", "torn", "label 11"]
)
def test_a_damaged_batch_is_named(tmp_path: Path, content: bytes) -> None:
    write_cifar10(tmp_path)
    (tmp_path / "cifar-10-batches-bin/data_batch_2.bin").write_bytes(content)
    with pytest.raises(DataMissing, match=r"data_batch_2.bin is damaged"):
        load_cifar10(tmp_path)


def test_a_damaged_python_batch_is_named(tmp_path: Path) -> None:
    write_python_layout(write_cifar10(tmp_path / "binary"), tmp_path, 2)
    (tmp_path / "cifar-10-batches-py/test_batch").write_bytes(b"\x80\x02]q\x00.")
    with pytest.raises(DataMissing, match=r"test_batch is damaged"):
        load_cifar10(tmp_path)
