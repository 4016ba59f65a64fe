"""`griffin convert`: weights from one program's format into another's."""

import dataclasses
import shlex
import time
from pathlib import Path
from typing import Annotated, Literal

import tyro

from griffin_eqx.cli.arguments import Flag, Text, parse

Window = Annotated[
    Literal["trained", "hf"] | None, tyro.conf.arg(metavar="{trained,hf}", help_behavior_hint="")
]
Dtype = Annotated[
    Literal["f32", "bf16", "f16", "int8"] | None,
    tyro.conf.arg(metavar="{f32,bf16,f16,int8}", help_behavior_hint=""),
]
_Folder = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SRC", help_behavior_hint="")]


@dataclasses.dataclass(frozen=True)
class Convert:
    """Carry the weights of a model into the format of another program, or into ours.

    Read are run directories, folders of ours, Hugging Face's RecurrentGemma (config.json and safetensors) and
    DeepMind's (Flax parameters in an Orbax folder; torch parameters as safetensors, never as a pickle).

    Attributes:
      source: The folder to read; its format is found out. `latest` is the newest run.
      folder: The folder to write; it appears when it is complete.
      to: Its format; ours when left out.
      window: Hugging Face's code shows attention one key less than DeepMind's, which trained RecurrentGemma. `trained`
        reads their window as one key more than their code shows (the default), `hf` as their code shows it.
        Written back it is what it was.
      dtype: Round the weights to this dtype; they stay as they are when left out. `int8` keeps matrices in 8 bits with
        a scale a channel, in our format alone: a quarter of float32's memory, for sampling and judging.
      like: For DeepMind's folders: a preset or TOML file with the attention window, soft cap and embedding scale, which
        parameters do not say. Not needed for RecurrentGemma itself.
      which: Which checkpoint of a run: `best` or `last`.
      overwrite: Replace weights that are there.
      quiet: Print nothing.
    """

    source: _Folder
    folder: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DST", help_behavior_hint="")]
    to: Literal["griffin", "hf", "deepmind", "deepmind-torch"] = "griffin"
    window: Window = None
    dtype: Dtype = None
    like: Text = None
    which: Literal["best", "last"] = "best"
    overwrite: Flag = False
    quiet: Flag = False


def run(argv: list[str]) -> int:
    """Runs the command."""
    switches = parse(Convert, argv, prog="griffin convert")
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    from griffin_eqx.interop import convert

    began, written = time.monotonic(), 0
    columns = (TextColumn("{task.description:40.40}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, disable=switches.quiet, transient=True) as bar:
        task = bar.add_task("reading", total=None)

        def told(name: str, nbytes: int) -> None:
            nonlocal written
            written += nbytes
            bar.update(task, description=name, completed=written)

        path = convert(
            switches.source,
            switches.folder,
            to=switches.to,
            window=switches.window,
            dtype=switches.dtype,
            like=switches.like,
            which=switches.which,
            overwrite=switches.overwrite,
            progress=told,
        )
    if not switches.quiet:
        print(f"{path}: {written / 1e6:,.1f} MB of weights in {time.monotonic() - began:.1f} s")
        print(f"next: {_next(path, switches.to)}")
    return 0


def _next(path: Path, to: str) -> str:
    """What one does with such a folder."""
    folder = shlex.quote(str(path))
    if to == "griffin":
        return f'griffin sample {folder} --prompt "..."'
    if to == "hf":
        return f"RecurrentGemmaForCausalLM.from_pretrained({str(path)!r})  # in Python with transformers"
    if to == "deepmind":
        params = str(path / "params")
        # Their own `load_parameters` fails with Orbax 0.12.8, on folders of its own as well.
        return f"orbax.checkpoint.PyTreeCheckpointer().restore({params!r})  # in Python with recurrentgemma"
    tensors = str(path / "model.safetensors")
    return f"model.load_state_dict(safetensors.torch.load_file({tensors!r}))  # in Python with recurrentgemma"
