"""The download of weights from a server on this machine."""

import contextlib
import hashlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torchvision.models import Weights, WeightsEnum

from resnet.errors import Refused
from resnet.nets.inputs import Inputs
from resnet.nets.model import build
from resnet.zoo import hub as torchvisions
from resnet.zoo.fitting import fit
from resnet.zoo.hub import TORCHVISION, checkpoint, download, downloaded, inputs, load_torchvision, offered
from resnet.zoo.relatives import RELATIVES
from tests.support.server import Server
from tests.support.tiny import TINY, same


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of torch.hub's."""
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "hub"))
    return tmp_path / "hub" / "checkpoints"


@pytest.fixture
def server(hub: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(torchvisions, "CHUNK", 1024)
    body = io.BytesIO()
    torch.save(build(TINY, seed=1).state_dict(), body)
    with Server(body.getvalue()) as server:
        yield server


def entry(server: Server, checksum: str = "", name: str = "tiny") -> WeightsEnum:
    """What torchvision would offer had it put that file on that server."""
    digits = checksum or hashlib.sha256(server.body).hexdigest()[:8]
    url = server.url(f"models/{name}-{digits}.pth")
    made: Any = WeightsEnum("Tiny_Weights", {"V1": Weights(url=url, transforms=nn.Identity, meta={})})
    return made.V1


def files(hub: Path) -> list[str]:
    return [path.name for path in hub.iterdir()] if hub.exists() else []


def test_download(hub: Path, server: Server, capfd: pytest.CaptureFixture[str]) -> None:
    tiny, total = entry(server), len(server.body)
    assert not downloaded(tiny)
    steps = list(download(tiny))
    assert steps[0] == (1024, total)
    assert [done for done, _ in steps] == sorted(done for done, _ in steps)
    assert steps[-1] == (total, total)
    assert files(hub) == [checkpoint(tiny).name]
    assert checkpoint(tiny).stat().st_mode & 0o444 == 0o444  # shared with torch.hub and other users
    model = build(TINY, seed=2)
    assert fit(model, load_torchvision(tiny)).fits
    assert same(model.state_dict(), build(TINY, seed=1).state_dict())
    assert list(download(tiny)) == [(total, total)]  # it is there
    assert server.requests == 1
    assert torch.hub.load_state_dict_from_url(tiny.url, weights_only=True).keys() == model.state_dict().keys()
    assert server.requests == 1  # torch.hub finds it too
    assert capfd.readouterr() == ("", "")


def test_download_with_a_wrong_checksum(hub: Path, server: Server) -> None:
    with pytest.raises(Refused, match=r"checksum of these [\d,]+ bytes is not that of tiny-01234567\.pth.*Try again"):
        list(download(entry(server, "01234567")))
    assert files(hub) == []
    with pytest.raises(Refused, match="Choose download first"):
        load_torchvision(entry(server, "01234567"))


def test_download_cut_by_the_server_then_again(hub: Path, server: Server) -> None:
    server.cut = True
    with pytest.raises(Refused, match=r"broke off at [\d,]+ of [\d,]+ bytes|cannot be reached"):
        list(download(entry(server)))
    assert files(hub) == []
    server.cut = False
    assert list(download(entry(server)))
    assert downloaded(entry(server))


def test_a_damaged_file_is_fetched_again(hub: Path, server: Server) -> None:
    tiny = entry(server)
    hub.mkdir(parents=True)
    checkpoint(tiny).write_bytes(server.body[:-1] + b"?")
    with pytest.raises(Refused, match="no whole"):
        load_torchvision(tiny)
    assert list(download(tiny))
    assert checkpoint(tiny).read_bytes() == server.body


def test_a_closed_download_leaves_nothing(hub: Path, server: Server) -> None:
    steps = download(entry(server))
    assert next(iter(steps))[0] == 1024
    assert files(hub) != []
    steps.close()  # type: ignore[attr-defined]
    assert files(hub) == []


def test_the_server_refuses(hub: Path, server: Server) -> None:
    server.status = 404
    with pytest.raises(Refused, match=r"answered 404 Not Found for tiny-\w+\.pth\. Try again, or put tiny-"):
        list(download(entry(server)))
    assert files(hub) == []


def test_offline(hub: Path, server: Server) -> None:
    tiny = entry(server)
    server.shutdown()
    server.server_close()
    with pytest.raises(Refused, match=r"cannot be reached \(.*\): is there a network\? Try again.*need no network\.$"):
        list(download(tiny))


def test_no_place_to_save(hub: Path, server: Server) -> None:
    hub.parent.mkdir()
    hub.write_text("a file where the folder should be")
    with pytest.raises(Refused, match=r"cannot be saved in .*checkpoints"):
        list(download(entry(server)))


@pytest.mark.parametrize("name", ["../../evil", "..%2Fevil", "a b", "tiny/../evil"])
def test_a_name_stays_in_its_folder(name: str, hub: Path, server: Server) -> None:
    tiny = entry(server, name=name)
    with contextlib.suppress(Refused):
        list(download(tiny))
    assert all(path.parent == hub for path in hub.parent.parent.rglob("*.pth"))
    with contextlib.suppress(Refused):
        assert checkpoint(tiny).parent == hub


@pytest.mark.parametrize("url", ["https://x.org/net.pth", "https://x.org/net-12345678.tar", "https://x.org/-", ""])
def test_a_url_without_a_checksum(url: str, hub: Path) -> None:
    made: Any = WeightsEnum("Bad_Weights", {"V1": Weights(url=url, transforms=nn.Identity, meta={})})
    with pytest.raises(Refused, match="name ends in its checksum"):
        list(download(made.V1))


@pytest.mark.parametrize("name", [*TORCHVISION, *RELATIVES])
def test_torchvisions_names_carry_checksums(name: str, hub: Path) -> None:
    for weight in offered(name).values():
        assert checkpoint(weight) == hub / weight.url.rsplit("/", 1)[1]


def test_the_refusal_says_which_file_to_put_where(hub: Path, server: Server) -> None:
    server.status, tiny = 404, entry(server)
    with pytest.raises(Refused) as caught:
        list(download(tiny))
    assert f"put {checkpoint(tiny).name}, from {tiny.url}, into {hub}, or" in str(caught.value)


def test_relatives_are_offered_where_their_weights_know_classes_and_can_be_read() -> None:
    assert list(offered("VGG-16")) == ["IMAGENET1K_V1"], "the other file has features only"
    assert list(offered("DenseNet-121")) == ["IMAGENET1K_V1"]
    assert not offered("RegNet-Y 128GF"), "2.4 GB"
    assert not offered("no such net")
    assert {name for name in RELATIVES if not offered(name)} == {"RegNet-Y 128GF"}


@pytest.mark.parametrize("name", [*TORCHVISION, *RELATIVES])
def test_how_photos_are_cut_is_torchvisions(name: str) -> None:
    for weights in offered(name).values():
        theirs, found = weights.transforms(), inputs(weights)
        assert round(found.resize * theirs.crop_size[0]) == theirs.resize_size[0]
        assert found.interpolation == theirs.interpolation.value
        assert Inputs.from_json(found.to_json()) == found


def test_inputs_are_torchvisions_own() -> None:
    found = inputs(offered("ResNet-50")["IMAGENET1K_V2"])
    assert found.mean == (0.485, 0.456, 0.406)
    assert found.std == (0.229, 0.224, 0.225)
    assert len(found.class_names) == 1000
    assert found.class_names[0] == "tench"
    assert len(inputs(offered("ResNet3D-18")["KINETICS400_V1"]).class_names) == 400
