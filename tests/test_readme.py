"""The README says what is so."""

import json
import re
from pathlib import Path

import yaml

from signals_core.settings_loading import load_settings

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_its_settings_table_lists_every_setting_with_its_default():
    rows = dict(re.findall(r"^\| `([a-z_.0-9]+)` \| `(.*?)` \|", README, re.MULTILINE))
    assert rows == {key: json.dumps(value) for key, value, _ in load_settings(ROOT, environ={}).items()}


def test_every_default_of_the_specification_is_in_settings_yaml():
    ml = yaml.safe_load((ROOT / "config" / "settings.yaml").read_text())["ml"]
    assert {
        name: ml[name] for name in ml if name not in ("scopes", "class_weighting", "train_months", "xgb_params")
    } == {
        "prediction_horizon": 5,
        "up_threshold": 0.01,
        "down_threshold": -0.01,
        "min_training_samples": 500,
        "retrain_interval_days": 7,
        "model_staleness_days": 14,
        "confidence_threshold": 0.55,
    }
    assert ml["xgb_params"] == {
        "n_estimators": 300,
        "max_depth": 6,
        "learning_rate": 0.05,
        "subsample": 0.8,
        "colsample_bytree": 0.8,
        "min_child_weight": 5,
        "objective": "multi:softprob",
        "num_class": 3,
        "eval_metric": "mlogloss",
    }


def test_its_table_of_dependencies_names_every_direct_one():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = project["dependencies"] + [d for extra in project["optional-dependencies"].values() for d in extra]
    names = {re.match(r"[A-Za-z0-9_-]+", requirement)[0] for requirement in declared}
    table = README.partition("## Dependencies")[2]
    assert [name for name in sorted(names) if name not in table] == []


def test_the_lock_names_no_index_and_hashes_everything():
    lock = (ROOT / "requirements.lock").read_text()
    assert not re.search(r"^(-|.*file:|.*https?:)", lock, re.MULTILINE)
    packages = re.split(r"^(?=[A-Za-z])", lock, flags=re.MULTILINE)[1:]
    assert len(packages) > 100
    assert [package.split()[0] for package in packages if "--hash=sha256:" not in package] == []
