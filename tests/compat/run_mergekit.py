"""Runs mergekit, with mergekit's own Python, on many configs in one process.

python run_mergekit.py JOBS.json: a list of {config, out, options}. Writes JOBS.json.done: per job
null, or the error that mergekit ended with. It has no network: whatever asks for one fails here.
"""

import json
import sys
import traceback
from pathlib import Path


def main() -> None:
    import yaml
    from mergekit.config import MergeConfiguration
    from mergekit.merge import run_merge
    from mergekit.options import MergeOptions

    path = Path(sys.argv[1])
    outcomes: list[str | None] = []
    for job in json.loads(path.read_text()):
        try:
            text = Path(job["config"]).read_text()
            documents = [one for one in yaml.safe_load_all(text) if one is not None]
            if len(documents) > 1:
                _stages(job)
            else:
                config = MergeConfiguration.model_validate(documents[0])
                settings: dict[str, object] = {
                    "random_seed": 7,
                    "quiet": True,
                    "copy_tokenizer": True,
                }
                settings["lora_merge_cache"] = f"{job['out']}.loras"
                options = MergeOptions(**{**settings, **job["options"]})
                run_merge(config, job["out"], options, config_source=text)
            outcomes.append(None)
        except BaseException as error:  # whatever it is, it is the finding
            traceback.print_exc()
            outcomes.append(f"{type(error).__name__}: {error}")
    Path(f"{path}.done").write_text(json.dumps(outcomes))


def _stages(job: dict[str, object]) -> None:
    """A multi-stage config, by the command that does those."""
    from mergekit.scripts.multimerge import main as multimerge

    work = Path(str(job["out"])).with_suffix(".stages")
    words = ["--intermediate-dir", work, "--out-path", job["out"], job["config"]]
    multimerge([str(word) for word in words], standalone_mode=False)


if __name__ == "__main__":
    main()
