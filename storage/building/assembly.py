"""From a plan to a whole store in the building folder: parts, then the layout, then shards, and zarr.json last."""

import shutil
from collections.abc import Callable, Iterable

from ...config.errors import UserError
from ..tokens.store import StoreInfo
from .crew import Crew
from .layout import Layout, decide_layout, read_layout
from .metadata import write_store_info
from .part_files import PartDamaged, discard, is_present, read_summary
from .parts import TEXT
from .plan import Plan
from .site import Task, shard_summary
from .workspace import Workspace, plan_digest

Progress = Callable[[str, int, int], None]
"""Called with the stage, bytes of it that are done and bytes in all.

Stages: "read" and "train" (sizes 0: how long it takes is not known) if a tokenizer is trained; "encode"; "write".
"""


class NothingNew(Exception):
    """Every document is a duplicate of one that the store has."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        super().__init__("every document is a duplicate")


class Assembly:
    """One building folder on its way to a store; whatever is done already is not done again."""

    def __init__(self, space: Workspace, plan: Plan, crew: Crew, progress: Progress) -> None:
        self._space, self._plan, self._crew, self._progress = space, plan, crew, progress
        self._digest = plan_digest(space)
        self._sizes = [part.size_bytes for part in plan.parts]

    def missing_parts(self) -> list[int]:
        """Parts that are not there in their length."""
        return [number for number in range(len(self._plan.parts)) if not self._has_part(number)]

    def finish(self) -> tuple[StoreInfo, Layout]:
        """Do all that is left. Raises UserError for damaged sources, or none in them; NothingNew; OSError."""
        self._space.store.mkdir(exist_ok=True)
        layout = self._repeated(self._to_layout)
        if layout.tokens == layout.first_token and layout.first_token and layout.exact + layout.near:
            raise NothingNew(layout)
        if layout.tokens == layout.first_token:
            raise _no_document(self._plan, layout.skipped)
        shard_tokens = self._plan.options["shard_tokens"]
        left = self._unfinished_shards(layout)
        num_shards = len(layout.shards(shard_tokens))
        done = num_shards - len(left)
        while left:
            left = self._write_shards(layout, left, done)
            done = num_shards - len(left)
        return write_store_info(self._space, self._plan, layout), layout

    def _to_layout(self) -> Layout:
        layout = read_layout(self._space)
        if layout is None or not all((self._space.store / name).is_file() for name in layout.document_files):
            self.make_parts(self.missing_parts())
            shutil.rmtree(self._space.store)
            self._space.store.mkdir()
            layout = decide_layout(self._space, self._plan)
        return layout

    def make_parts(self, numbers: Iterable[int]) -> None:
        """Tokenize parts."""
        left = set(numbers)
        total = sum(self._sizes)
        done = total - sum(self._sizes[number] for number in left)

        def passed(size: int) -> None:
            nonlocal done
            done = min(total, done + size)
            self._progress("encode", done, total)

        passed(0)
        self._crew.run([("part", number) for number in sorted(left)], lambda task, result: None, passed)
        self._progress("encode", total, total)

    def _unfinished_shards(self, layout: Layout) -> list[int]:
        """Shards that are not there; those that seem to be are read again, since a disk may have lost their bytes."""
        shards = layout.shards(self._plan.options["shard_tokens"])
        there = [number for number in shards if shard_summary(self._space, number) is not None]
        missing = set(shards) - set(there)

        def done(task: Task, result: dict[str, bool]) -> None:
            if not result["whole"]:
                self._space.shard_summary(task[1]).unlink()
                missing.add(task[1])

        self._crew.run([("check", number) for number in there], done, lambda size: None)
        return sorted(missing)

    def _write_shards(self, layout: Layout, left: list[int], done: int) -> list[int]:
        """Write shards and remove parts that no other shard needs; those still left where a part was damaged."""
        shard_tokens = self._plan.options["shard_tokens"]
        needs = {shard: layout.parts_of(shard, shard_tokens) for shard in left}
        needed = sorted({number for shard in left for number in needs[shard]})
        self.make_parts(number for number in needed if not self._has_part(number))
        users = {number: sum(number in needs[shard] for shard in left) for number in needed}
        remaining = set(left)
        total = len(left) + done
        self._release(set(range(len(self._plan.parts))) - set(needed))

        def written(task: Task, result: dict[str, int]) -> None:
            remaining.discard(task[1])
            self._progress("write", total - len(remaining), total)
            for number in needs[task[1]]:
                users[number] -= 1
            self._release(number for number in needs[task[1]] if not users[number])

        try:
            self._crew.run([("shard", shard) for shard in left], written, lambda size: None)
        except PartDamaged as damaged:
            discard(self._space, damaged.number)
        return sorted(remaining)

    def _release(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            self._space.part(number).unlink(missing_ok=True)

    def _has_part(self, number: int) -> bool:
        summary = read_summary(self._space, number, self._digest)
        return summary is not None and is_present(self._space, number, summary)

    def _repeated(self, action: Callable[[], Layout]) -> Layout:
        """Until no part is found damaged any more."""
        while True:
            try:
                return action()
            except PartDamaged as damaged:
                discard(self._space, damaged.number)


def _no_document(plan: Plan, skipped: int) -> UserError:
    if skipped or any(part.kind == TEXT for part in plan.parts):
        files = sum(len(part.slices) for part in plan.parts if part.kind == TEXT)
        return UserError("SOURCE", f"none of {files} files is UTF-8 text", "give text files")
    return UserError("SOURCE", "holds no document", "give sources with documents")
