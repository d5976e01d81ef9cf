"""The quickstart's steps, each through the same functions that the commands call."""

import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..config.errors import UserError
from ..config.loading import load_run
from ..config.rundir import RunDir
from ..launchers.follow import wait_for_end
from ..launchers.plan import plan_run
from ..launchers.submission import submit_run
from ..serving.client import EndpointClient
from ..serving.endpoint import forget
from ..serving.engine_check import check_by_engine
from ..serving.launch import ServeOptions
from ..serving.models import ServedModel, find_model
from ..serving.service import Served, serve
from ..serving.stop import stop
from ..storage.building.build import BuildOptions, build_store
from ..storage.building.sources import Selection
from ..storage.checkpoints.checkpoint import find_checkpoint
from ..tracking.gpu_usage import NOT_MEASURED, read_usage
from ..tracking.recorder import read_metrics
from .plan import plan_text
from .progress import RunProgress, StageProgress, Waiting
from .quickstart_check import check, copy_presets, run_file_name

_VOCABULARY = 512
_PROMPT = "def __init__(self, "


@dataclass
class Closing:
    """What was done, where it is, what to type next."""

    rows: list[tuple[str, str, float]] = field(default_factory=list)
    """(step, what came of it, seconds)."""
    facts: dict[str, Any] = field(default_factory=dict)
    next_commands: list[str] = field(default_factory=list)

    def record(self) -> dict[str, Any]:
        """For --json."""
        steps = [{"step": step, "result": result, "seconds": round(s, 1)} for step, result, s in self.rows]
        return {"steps": steps, **self.facts, "next": self.next_commands}

    def table(self) -> str:
        """For people."""
        lines = ["", "what         seconds  result"]
        lines += [f"{step:12} {seconds:7.1f}  {result}" for step, result, seconds in self.rows]
        total = sum(seconds for *_, seconds in self.rows)
        lines += [f"{'all':12} {total:7.1f}", f"{'GPU':12} {'':7}  {self.facts.get('gpu', NOT_MEASURED)}", "", "next"]
        return "\n".join(lines + [f"  {command}" for command in self.next_commands])


@dataclass(frozen=True, kw_only=True)
class Quickstart:
    """The whole path in one folder: quickstart.yaml, presets/, stores/, runs/."""

    folder: Path
    text: Path | None
    moe: bool
    cluster: str
    overrides: tuple[str, ...]
    keep_serving: bool
    closing: Closing = field(default_factory=Closing)

    def go(self) -> Closing:
        """Every step in order; the first that fails ends it with its own error."""
        check(self.folder, self.text, self._run_file.name, self._overrides())
        if self.cluster == "dev":
            with self._step("cluster") as say:
                say(self._bring_up_cluster())
        with self._step("store") as say:
            say(self._build_store())
        with self._step("plan") as say:
            say(self._show_plan())
        with self._step("train") as say:
            run = self._train()
            say(self._loss_fell(run))
        with self._step("export") as say:
            model = find_model(str(run.path))
            say(str(model.folder))
        with self._step("check") as say:
            say(self._check_logits(run, model))
        with self._step("serve") as say:
            say(self._serve(model))
        self._say_next(run, model)
        return self.closing

    @contextmanager
    def _step(self, name: str) -> Iterator[Callable[[str], None]]:
        """Time a step and put what it says into the closing table."""
        print(f"\n== {name}", file=sys.stderr, flush=True)
        began, said = time.monotonic(), [""]
        yield lambda result: said.__setitem__(0, result)
        self.closing.rows.append((name, said[0], time.monotonic() - began))
        print(said[0], file=sys.stderr, flush=True)

    @property
    def _run_file(self) -> Path:
        return self.folder / run_file_name(self.moe)

    def _bring_up_cluster(self) -> str:
        from ..config.profiles import dev_cluster_folder
        from ..launchers.dev_cluster.cluster import up

        now = up(dev_cluster_folder())
        return f"{len(now.nodes)} nodes are up; take them down with `trainwright cluster dev down`"

    def _build_store(self) -> str:
        """The run file and the preset first, then the store, unless an earlier quickstart left one."""
        self.folder.mkdir(parents=True, exist_ok=True)
        copy_presets(self.folder, self._run_file.name)
        store = self.folder / "stores" / "stdlib.zarr"
        if store.exists():
            return f"{store} is there already"
        store.parent.mkdir(exist_ok=True)
        # The interpreter's own library: real text that every machine has. A folder of the user's is taken whole.
        source = self.text or Path(sysconfig.get_path("stdlib"))
        selection = Selection() if self.text else Selection((".py",), ("test", "tests", "site-packages"))
        options = BuildOptions(vocab_size=_VOCABULARY, selection=selection)
        with StageProgress() as progress:
            info = build_store([source], store, options, progress.show).info
        return f"{info.tokens:,} tokens of {info.documents:,} documents from {source}"

    def _overrides(self) -> list[str]:
        dev = ["cluster.profile=dev"] if self.cluster == "dev" else []
        return [*dev, *self.overrides]

    def _show_plan(self) -> str:
        plan = plan_run(load_run(self._run_file, self._overrides()))
        print(plan_text(plan), file=sys.stderr, flush=True)
        return f"{plan.parameters:,} parameters on {len(plan.ranks)} ranks, {plan.tokens:,} tokens"

    def _train(self) -> RunDir:
        submitted = submit_run(load_run(self._run_file, self._overrides()), source=self._run_file)
        run = submitted.run_dir
        with RunProgress() as progress:
            last = wait_for_end(run, progress.show)
        if last.state != "finished":
            raise UserError(str(run.path), f"{last.state}: {last.why}", f"see {last.log}")
        return run

    def _loss_fell(self, run: RunDir) -> str:
        losses = [record["loss"] for record in read_metrics(run)]
        edge = min(5, len(losses))
        first, last = sum(losses[:edge]) / edge, sum(losses[-edge:]) / edge
        self.closing.facts |= {"run": str(run.path), "first_loss": first, "last_loss": last}
        gpus = read_usage(run, run.attempts()[-1])
        self.closing.facts |= {"loss_plot": str(run.loss_plot), "gpu": gpus.text() if gpus else NOT_MEASURED}
        return f"loss {first:.3f} -> {last:.3f} ({last / first:.0%}) in {len(losses)} steps; {run.loss_plot}"

    def _check_logits(self, run: RunDir, model: ServedModel) -> str:
        """transformers on the export against the engine on the checkpoint, both in float32, each its own process."""
        checkpoint = find_checkpoint(str(run.path)).folder
        difference = check_by_engine(run.path, checkpoint, model.folder)
        self.closing.facts |= {"logits_max_rel": difference, "export": str(model.folder)}
        return f"transformers' logits equal the engine's to {difference:.1e}"

    def _serve(self, model: ServedModel) -> str:
        options = ServeOptions(kv_cache_gib=0.25, profile=None if self.cluster == "local" else self.cluster)
        with Waiting("serve") as waiting:
            served = serve(model, options, waiting.say)
        print(served.text(), file=sys.stderr, flush=True)
        try:
            completion = self._complete(served)
        finally:
            if not self.keep_serving:
                stop(served.folder)
                forget(served.spec.name)
        self.closing.facts |= {"endpoint": served.record(), "prompt": _PROMPT, "completion": completion}
        print(f"\n{_PROMPT}{completion}", file=sys.stderr, flush=True)
        return f"{_PROMPT!r} -> {completion[:60]!r}"

    def _complete(self, served: Served) -> str:
        body = {"model": served.spec.name, "prompt": _PROMPT, "max_tokens": 48, "temperature": 0}
        status, answer = EndpointClient(str(served.status.url), served.folder.read_key()).complete(body)
        if status != 200:
            raise RuntimeError(f"the endpoint answered {status}: {answer}")
        return str(answer["choices"][0]["text"])

    def _say_next(self, run: RunDir, model: ServedModel) -> None:
        on, profile = (" cluster.profile=dev", " --profile dev") if self.cluster == "dev" else ("", "")
        serving = f"trainwright serve {run.path}{profile}"
        if self.keep_serving:
            serving = f"trainwright serve --stop {model.name}"
        self.closing.next_commands += [
            f"trainwright status {run.path}",
            f"trainwright plan {self._run_file}{on} train.steps=1000",
            f"trainwright submit {self._run_file}{on} train.steps=1000",
            f"trainwright export {run.path} my-model",
            serving,
        ]
