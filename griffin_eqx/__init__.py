"""griffin_eqx: language models that mix information over time in different ways, in Equinox and JAX.

This is the contents page: every public name, imported when it is first used, so that help and patterns never
wait for JAX. Sub-modules (`gx.registry`, `gx.presets`, ...) come the same way.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from griffin_eqx import presets as presets
    from griffin_eqx import registry as registry
    from griffin_eqx.ablation.ablate import ablate as ablate
    from griffin_eqx.ablation.report import write_reports as write_reports
    from griffin_eqx.block import AbstractBlock as AbstractBlock
    from griffin_eqx.block import Dims as Dims
    from griffin_eqx.block import SequenceLayout as SequenceLayout
    from griffin_eqx.block import refuse_positions_beyond as refuse_positions_beyond
    from griffin_eqx.block import resolve_layout as resolve_layout
    from griffin_eqx.config import Config as Config
    from griffin_eqx.errors import ConfigError as ConfigError
    from griffin_eqx.errors import GriffinError as GriffinError
    from griffin_eqx.errors import OptionError as OptionError
    from griffin_eqx.evaluation.evaluate import Evaluation as Evaluation
    from griffin_eqx.evaluation.evaluate import evaluate as evaluate
    from griffin_eqx.model import LanguageModel as LanguageModel
    from griffin_eqx.model import capture as capture
    from griffin_eqx.pattern import Pattern as Pattern
    from griffin_eqx.pattern import PatternError as PatternError
    from griffin_eqx.presets import preset as preset
    from griffin_eqx.sampling.engine import Engine as Engine
    from griffin_eqx.sampling.generate import generate as generate
    from griffin_eqx.sampling.samplers import Sampling as Sampling
    from griffin_eqx.summary import ModelSummary as ModelSummary
    from griffin_eqx.summary import describe as describe
    from griffin_eqx.synthetic import AbstractSyntheticTask as AbstractSyntheticTask
    from griffin_eqx.taps import tap as tap
    from griffin_eqx.task import AbstractTask as AbstractTask
    from griffin_eqx.task import EvalSet as EvalSet
    from griffin_eqx.training.load import Loaded as Loaded
    from griffin_eqx.training.load import load as load
    from griffin_eqx.training.loop import train as train
    from griffin_eqx.verify import check_block as check_block
    from griffin_eqx.verify import law_tests as law_tests
    from griffin_eqx.verify import scan_law_tests as scan_law_tests
    from griffin_eqx.verify import verify_block as verify_block
    from griffin_eqx.verify import verify_scan as verify_scan

_HOMES = {
    "AbstractBlock": "block",
    "AbstractSyntheticTask": "synthetic",
    "AbstractTask": "task",
    "Config": "config",
    "ConfigError": "errors",
    "Dims": "block",
    "Engine": "sampling.engine",
    "EvalSet": "task",
    "Evaluation": "evaluation.evaluate",
    "GriffinError": "errors",
    "LanguageModel": "model",
    "Loaded": "training.load",
    "ModelSummary": "summary",
    "OptionError": "errors",
    "Pattern": "pattern",
    "PatternError": "pattern",
    "Sampling": "sampling.samplers",
    "SequenceLayout": "block",
    "ablate": "ablation.ablate",
    "capture": "model",
    "check_block": "verify",
    "describe": "summary",
    "evaluate": "evaluation.evaluate",
    "generate": "sampling.generate",
    "law_tests": "verify",
    "load": "training.load",
    "preset": "presets",
    "refuse_positions_beyond": "block",
    "resolve_layout": "block",
    "scan_law_tests": "verify",
    "tap": "taps",
    "train": "training.loop",
    "verify_block": "verify",
    "verify_scan": "verify",
    "write_reports": "ablation.report",
}

__all__ = [
    "AbstractBlock",
    "AbstractSyntheticTask",
    "AbstractTask",
    "Config",
    "ConfigError",
    "Dims",
    "Engine",
    "EvalSet",
    "Evaluation",
    "GriffinError",
    "LanguageModel",
    "Loaded",
    "ModelSummary",
    "OptionError",
    "Pattern",
    "PatternError",
    "Sampling",
    "SequenceLayout",
    "ablate",
    "capture",
    "check_block",
    "describe",
    "evaluate",
    "generate",
    "law_tests",
    "load",
    "preset",
    "refuse_positions_beyond",
    "resolve_layout",
    "scan_law_tests",
    "tap",
    "train",
    "verify_block",
    "verify_scan",
    "write_reports",
]


def __getattr__(name: str) -> Any:
    from importlib import import_module, util

    if name in _HOMES:
        value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
        globals()[name] = value
        return value
    if not name.startswith("_") and util.find_spec(f"{__name__}.{name}"):
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
