"""One config of the zoo, merged by ours, by mergekit and in float64, and what came of it."""

import contextlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from mergepipe.cli.main import main
from tests.compat import oracle
from tests.compat.differences import beside, failure, refusal
from tests.compat.expected import Expected, apart
from tests.compat.models import vocabulary
from tests.compat.vocabularies import with_rows_of
from tests.compat.zoo import load, outputs
from tests.compat.zoo_configs import ZooConfig
from tests.compat.zoo_models import DTYPES, Model, NotMerged, Zoo, stored, write_model

# Logits in float64 of weights that differ by a rounding here and there, beside the largest.
LOGITS = {torch.float32: 1e-4, torch.bfloat16: 0.05, torch.float16: 0.01}


@dataclass(frozen=True)
class Outcome:
    """The classes of what ours and mergekit made; why, if one of them is no class."""

    ours: str
    mergekit: str
    detail: str = ""

    @property
    def unexplained(self) -> bool:
        return "unexplained" in self.ours or "unexplained" in self.mergekit

    def __str__(self) -> str:
        return f"ours: {self.ours}; mergekit: {self.mergekit}; {self.detail}"


class Comparison:
    """A config, its files, and its results."""

    def __init__(self, config: ZooConfig, zoo: Zoo, directory: Path) -> None:
        self.config = config
        self._zoo, self._directory = zoo, directory
        self._adapters = {
            name: zoo.adapter(config.kind, on, settings, config.seed * 10 + k)
            for k, (name, (on, settings)) in enumerate(config.adapters.items())
        }
        self.ours = directory / f"{config.seed}.ours"
        self.theirs = directory / f"{config.seed}.mergekit"

    def write_for_mergekit(self) -> Path:
        """The config as mergekit is asked: with digits enough for the result's dtype."""
        documents = [dict(document) for document in self.config.documents]
        for document in documents:
            document["out_dtype"] = self._dtype(document)
            document["dtype"] = "float32"
        return self._write(documents, self._directory / f"{self.config.seed}.mergekit.yml")

    def outcome(self, error: str | None) -> Outcome:
        """Merges it with ours. error: mergekit's, if it has not merged it."""
        recipe = self._write(self.config.documents, self._directory / f"{self.config.seed}.yml")
        code, words = merge_ours(recipe, self.ours, self._directory / "home")
        try:
            expected = self._expected()
        except (oracle.Refused, NotMerged) as reason:
            if code == 13:
                return Outcome(f"refused, rightly: {reason}", _theirs(error))
            return Outcome(f"unexplained: merged, but {reason}", _theirs(error), words)
        if code != 0:
            return Outcome(refusal(words), _theirs(error), f"exit {code}: {words}")
        ours, detail = self._beside_oracle(expected)
        if error is not None:
            return Outcome(ours, failure(error), detail)
        theirs = self._theirs_in_order()
        differing = apart(theirs, expected, units=8)
        names = set(expected.dtypes)
        lacks, adds = sorted(names - set(theirs)), sorted(set(theirs) - names)
        return Outcome(ours, beside(self.config, lacks, adds, differing), f"{detail} {differing}")

    def _expected(self) -> Expected:
        models: dict[str, Model] = {}
        for document in self.config.documents:
            for name in oracle.references(document):
                if name not in models:
                    models[name] = self._model(name)
            taken = {name: models[name] for name in oracle.references(document)}
            if "tokenizer_source" in document:
                tokens = vocabulary(self.ours) if self.ours.exists() else None
                taken = with_rows_of(taken, document, tokens)
            exact = oracle.merge(document, taken, self.config.family)
            dtypes = dict.fromkeys(exact.model.tensors, DTYPES[self._dtype(document)])
            found = Expected(exact, dtypes)
            if "name" in document:
                models[document["name"]] = found.as_stage()
        return found

    def _model(self, name: str) -> Model:
        if name in self._adapters:
            on, _ = self.config.adapters[name]
            return self._zoo.with_adapter(self.config.kind, on, self._adapters[name])
        return self._zoo.model(self.config.kind, name)

    def _beside_oracle(self, expected: Expected) -> tuple[str, str]:
        """The class of our result beside the exact one."""
        self._tensors = stored(self.ours)
        names = set(self._tensors)
        if names != set(expected.dtypes):
            lacks, adds = set(expected.dtypes) - names, names - set(expected.dtypes)
            return "unexplained: tensors", f"ours lacks {lacks}, adds {adds}"
        for name, tensor in self._tensors.items():
            if tensor.dtype != expected.dtypes[name]:
                return "unexplained: dtype", f"{name} is {tensor.dtype}"
        differing = apart(self._tensors, expected, units=1)
        if differing:
            return "unexplained: values", f"{differing}"
        model, info = load(self.config.family, self.ours)
        told = {key: value for key, value in info.items() if value}
        if told:
            return "unexplained: transformers", f"{told}"
        return self._logits(outputs(self.config.family, model), expected)

    def _logits(self, ours: torch.Tensor, expected: Expected) -> tuple[str, str]:
        """Both results run in float64."""
        rounded, same = {}, True
        for name in expected.dtypes:
            exact, tensor = expected.rounded(name), self._tensors[name]
            doubtful = torch.from_numpy(expected.exact.doubtful[name])
            exact = torch.where(doubtful, tensor, exact)
            same = same and torch.equal(exact, tensor)
            rounded[name] = exact.double().numpy()
        place = write_model(
            self._directory / f"{self.config.seed}.oracle",
            Model(rounded, expected.exact.model.config),
        )
        theirs = outputs(self.config.family, load(self.config.family, place)[0])
        if ours.shape != theirs.shape or not torch.isfinite(ours).all():
            return "unexplained: logits", f"{tuple(ours.shape)}, {tuple(theirs.shape)}"
        off = float((ours - theirs).abs().max() / theirs.abs().max())
        kinds = {DTYPES[self._dtype(document)] for document in self.config.documents}
        allowed = 1e-9 if same else max(LOGITS[kind] for kind in kinds)
        if off > allowed:
            return "unexplained: logits", f"{off:.3g} of the largest apart, same weights: {same}"
        if same:
            return "the float64 merge, rounded, to the last bit; its logits", f"{off:.3g}"
        return "the float64 merge within rounding; its logits", f"{off:.3g}"

    def _theirs_in_order(self) -> dict[str, torch.Tensor]:
        """mergekit's result with its rows where ours has the same tokens."""
        theirs = stored(self.theirs)
        if not any("tokenizer_source" in document for document in self.config.documents):
            return theirs
        own, wanted = vocabulary(self.theirs), vocabulary(self.ours)
        assert own.keys() == wanted.keys()
        order = [own[token] for token in sorted(wanted, key=wanted.__getitem__)]
        by_token = (*oracle.EMBEDDINGS, *oracle.HEADS)
        return {
            name: value[order] if name.endswith(by_token) else value
            for name, value in theirs.items()
        }

    def _dtype(self, document: Mapping[str, Any]) -> str:
        found: str = document.get("out_dtype") or document.get("dtype") or self.config.kind.dtype
        return found

    def _write(self, documents: Any, path: Path) -> Path:
        path.write_text(yaml.safe_dump_all(self._filled(list(documents)), sort_keys=False))
        return path

    def _filled(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {
                key: self._place(inner) if key in ("model", "base_model") else self._filled(inner)
                for key, inner in value.items()
            }
        return [self._filled(inner) for inner in value] if isinstance(value, list) else value

    def _place(self, name: str) -> str:
        if any(document.get("name") == name for document in self.config.documents):
            return name
        if name in self._adapters:
            if self.config.bare:
                return str(self._adapters[name])
            on, _ = self.config.adapters[name]
            return f"{self._zoo.directory(self.config.kind, on)}+{self._adapters[name]}"
        return str(self._zoo.directory(self.config.kind, name))


def _theirs(error: str | None) -> str:
    return "refused by both" if error else "merges what ours refuses"


def merge_ours(recipe: Path, out: Path, home: Path) -> tuple[int, str]:
    """Exit code and words of `mp merge --recipe`, in a repository that is made at the first."""
    words = io.StringIO()
    with contextlib.redirect_stdout(words), contextlib.redirect_stderr(words):
        if not home.exists():
            home.mkdir()
            assert main(["-C", str(home), "init"]) == 0
        command = ["-C", str(home), "merge", "--recipe", str(recipe), "--out", str(out)]
        code = main([*command, "-b", f"random-{recipe.stem}"])
    return code, words.getvalue()
