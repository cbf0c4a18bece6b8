"""What the tests of weight files share."""

import pytest

from mrcnn_scratch.weights.torch_file import read_state_dict


@pytest.fixture
def read(tmp_path):
    """Read a PyTorch file made of these bytes."""

    def read_bytes(data):
        path = tmp_path / "weights.pth"
        path.write_bytes(data)
        return read_state_dict(path)

    return read_bytes
