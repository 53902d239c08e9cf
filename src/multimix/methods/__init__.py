"""Mixing methods: each one a dataclass whose fields are its settings and whose call is the algorithm."""

from typing import Any, get_args

from multimix.methods._predict import MixesInputs
from multimix.methods.adamixup import AdaMixUp
from multimix.methods.augmix import AugMix
from multimix.methods.automix import AutoMix
from multimix.methods.blended import GridMix, SmoothMix
from multimix.methods.cmixup import CMixup
from multimix.methods.combine import Alternate, Chain, Ramp, Until
from multimix.methods.comixup import CoMixup
from multimix.methods.cutmix import CutMix, FMix, ResizeMix, SaliencyMix
from multimix.methods.decoupled import DecoupledMixup
from multimix.methods.guidedmixup import GuidedMixup
from multimix.methods.mixup import ERM, ManifoldMixup, Mixup, ZetaMixup
from multimix.methods.mixuppath import MixupPath
from multimix.methods.multimix import DenseMultiMix, MultiMix
from multimix.methods.puzzlemix import PuzzleMix
from multimix.methods.recursivemix import RecursiveMix
from multimix.methods.regmixup import RegMixup
from multimix.methods.snapmix import AttentiveMix, SnapMix
from multimix.methods.stylemix import StyleCutMix, StyleMix
from multimix.methods.supermix import SuperMix
from multimix.methods.transmix import SMMix, TransMix
from multimix.methods.transport import AlignMix, OptTransMix
from multimix.methods.warping import KernelWarpingMixup, MixupIO

AnyMethod = (
    ERM
    | Mixup
    | CutMix
    | ResizeMix
    | FMix
    | ZetaMixup
    | ManifoldMixup
    | MultiMix
    | DenseMultiMix
    | SaliencyMix
    | PuzzleMix
    | CoMixup
    | StyleMix
    | StyleCutMix
    | AlignMix
    | OptTransMix
    | AutoMix
    | SuperMix
    | AdaMixUp
    | RegMixup
    | MixupIO
    | KernelWarpingMixup
    | DecoupledMixup
    | MixupPath
    | GuidedMixup
    | CMixup
    | SmoothMix
    | GridMix
    | AugMix
    | SnapMix
    | AttentiveMix
    | TransMix
    | SMMix
    | RecursiveMix
)
"""The one list: command line, documentation, laws and benchmarks take the methods from here."""

METHODS: tuple[type[Any], ...] = get_args(AnyMethod)

__all__ = [
    "ERM",
    "METHODS",
    "AdaMixUp",
    "AlignMix",
    "Alternate",
    "AttentiveMix",
    "AugMix",
    "AutoMix",
    "CMixup",
    "Chain",
    "CoMixup",
    "CutMix",
    "DecoupledMixup",
    "DenseMultiMix",
    "FMix",
    "GridMix",
    "GuidedMixup",
    "KernelWarpingMixup",
    "ManifoldMixup",
    "MixesInputs",
    "Mixup",
    "MixupIO",
    "MixupPath",
    "MultiMix",
    "OptTransMix",
    "PuzzleMix",
    "Ramp",
    "RecursiveMix",
    "RegMixup",
    "ResizeMix",
    "SMMix",
    "SaliencyMix",
    "SmoothMix",
    "SnapMix",
    "StyleCutMix",
    "StyleMix",
    "SuperMix",
    "TransMix",
    "Until",
    "ZetaMixup",
]
