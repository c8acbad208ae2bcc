"""The Helm chart says what deploy/kubernetes.yaml says: its values beside the manifest, and what Helm makes of both."""

from __future__ import annotations

import copy
import importlib.util
import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ctxprune.integrations.server.settings import Settings

ROOT = Path(__file__).parents[1]
CHART = ROOT / "deploy" / "helm" / "ctxprune"
TEMPLATES = {path.name: path.read_text(encoding="utf-8") for path in (CHART / "templates").iterdir()}
VALUES = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
ABOUT = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
MANIFEST = {
    each["kind"]: each for each in yaml.safe_load_all((ROOT / "deploy" / "kubernetes.yaml").read_text(encoding="utf-8"))
}
PAGE = (ROOT / "docs" / "deploying.md").read_text(encoding="utf-8")
SECRETS = {name for name, field in Settings.model_fields.items() if "SecretStr" in str(field.annotation)}
with_helm = pytest.mark.skipif(
    importlib.util.find_spec("helm_python") is None, reason="Helm's engine is not installed (extra all-tests)"
)


def named() -> set[str]:
    """Paths of values that the templates name."""
    return set(re.findall(r"\$?\.Values\.([\w.]+)", "\n".join(TEMPLATES.values())))


def leaves(values: dict[str, Any], above: str = "") -> Iterator[str]:
    for name, value in values.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{above}{name}.")
        else:
            yield f"{above}{name}"


def has(path: str, values: Any) -> bool:
    for name in path.split("."):
        if not isinstance(values, dict) or name not in values:
            return False
        values = values[name]
    return True


class TestValues:
    def test_what_the_templates_name_is_there(self):
        assert {path for path in named() if not has(path, VALUES)} == set()

    def test_what_is_there_is_named_in_a_template(self):
        paths = named()
        unread = {leaf for leaf in leaves(VALUES) if not any(f"{leaf}.".startswith(f"{path}.") for path in paths)}
        assert unread == set()

    def test_each_block_of_values_has_a_comment(self):
        text = (CHART / "values.yaml").read_text(encoding="utf-8")
        for name in ("settings", "secret", "networkPolicy", "serviceAccount", "terminationGracePeriodSeconds"):
            assert re.search(rf"^# .*\n{name}:", text, re.MULTILINE), name

    def test_the_page_names_every_block_and_its_example_changes_values_that_exist(self):
        rows = "\n".join(re.findall(r"^\| `.*\|$", PAGE, re.MULTILINE))
        assert [name for name in VALUES if f"`{name}" not in rows] == []
        example = yaml.safe_load(re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)[0])
        assert set(example.pop("settings")) <= set(Settings.model_fields)
        assert {leaf for leaf in leaves(example) if not has(leaf, VALUES)} == set()

    def test_settings_are_the_servers_and_hold_no_key(self):
        assert set(VALUES["settings"]) <= set(Settings.model_fields)
        assert not set(VALUES["settings"]) & SECRETS
        assert set(VALUES["secret"]["keys"]) <= SECRETS

    def test_the_version_is_the_packages(self):
        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        assert ABOUT["version"] == ABOUT["appVersion"] == project["version"]


class TestBesideTheManifest:
    """What can be compared with no Helm at hand."""

    def test_numbers_are_the_same(self):
        pod = MANIFEST["Deployment"]["spec"]["template"]["spec"]
        assert VALUES["replicas"] == MANIFEST["Deployment"]["spec"]["replicas"]
        assert VALUES["resources"] == pod["containers"][0]["resources"]
        assert VALUES["terminationGracePeriodSeconds"] == pod["terminationGracePeriodSeconds"]
        assert VALUES["podDisruptionBudget"]["minAvailable"] == MANIFEST["PodDisruptionBudget"]["spec"]["minAvailable"]
        assert VALUES["service"]["port"] == MANIFEST["Service"]["spec"]["ports"][0]["port"]

    def test_the_secret_is_made_with_the_same_command(self):
        def command(path: Path) -> str:
            text = path.read_text(encoding="utf-8").replace("\\\n", "").replace("#", "")
            return " ".join(re.search(r"kubectl create secret .*", text)[0].split())  # type: ignore[index]

        assert command(CHART / "values.yaml") == command(ROOT / "deploy" / "kubernetes.yaml")


def render(values: dict[str, Any] | None = None, name: str = "ctxprune") -> dict[str, Any]:
    """The objects that Helm makes, by kind."""
    import helm_python

    with helm_python.Chart.load(str(CHART)) as chart:
        files = chart.render(values or {}, name=name, namespace="default")
    objects = (yaml.safe_load(text) for path, text in files.items() if path.endswith(".yaml"))
    return {each["kind"]: each for each in objects if each}


def variables(objects: dict[str, Any]) -> dict[str, Any]:
    (container,) = objects["Deployment"]["spec"]["template"]["spec"]["containers"]
    return {each["name"]: each.get("value", each.get("valueFrom")) for each in container["env"]}


def compared(objects: dict[str, Any]) -> dict[str, Any]:
    """Objects without what the chart has of its own: Helm's labels, an account, written-out defaults."""
    objects = copy.deepcopy({kind: each for kind, each in objects.items() if kind != "ServiceAccount"})
    for each in objects.values():
        each["metadata"].pop("labels", None)
    objects["Service"]["spec"].pop("type", None)
    deployment = objects["Deployment"]["spec"]
    deployment["template"]["spec"].pop("serviceAccountName", None)
    (container,) = deployment["template"]["spec"]["containers"]
    container.pop("imagePullPolicy", None)
    container["env"].sort(key=lambda variable: variable["name"])
    for selector in (
        deployment["selector"],
        objects["PodDisruptionBudget"]["spec"]["selector"],
        objects["Service"]["spec"],
    ):
        selector.pop("matchLabels", None)
        selector.pop("selector", None)
    deployment["template"]["metadata"].pop("labels")
    return objects


@with_helm
class TestRendered:
    def test_is_lint_free(self):
        import helm_python

        found = helm_python.lint(str(CHART))
        assert [each for each in found["messages"] if "icon" not in each["error"]] == []
        assert found["errors"] == []

    def test_by_default_it_is_the_manifest(self):
        assert compared(render()) == compared(MANIFEST)

    def test_selectors_fit_the_pods_and_two_releases_differ(self):
        chosen = []
        for name in ("one", "other"):
            objects = render(name=name)
            deployment = objects["Deployment"]["spec"]
            selector = deployment["selector"]["matchLabels"]
            assert selector.items() <= deployment["template"]["metadata"]["labels"].items()
            assert objects["Service"]["spec"]["selector"] == selector
            assert objects["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == selector
            chosen.append(selector)
        assert chosen[0] != chosen[1]

    @pytest.mark.parametrize(
        ("setting", "value"),
        [
            ("max_body_bytes", 8_000_000),
            ("drain_seconds", 2.5),
            ("compressors", ["provence", "lead"]),
            ("log_text", True),
            ("tokenizers", {"default": "default"}),
            ("context_name", "notes"),
            ("cors_origins", ["https://example.org?a=1&b=<2>"]),
        ],
    )
    def test_a_setting_reaches_the_server_as_it_was_written(self, setting, value, monkeypatch):
        name = f"CTXPRUNE_{setting.upper()}"
        monkeypatch.setenv(name, variables(render({"settings": {setting: value}}))[name])
        read = getattr(Settings(), setting)
        assert (list(read) if isinstance(read, tuple) else read) == value

    @pytest.mark.parametrize("setting", sorted(SECRETS))
    def test_a_key_among_the_settings_is_refused(self, setting):
        import helm_python

        with pytest.raises(helm_python.HelmError, match=rf"settings\.{setting}: a key belongs in the secret"):
            render({"settings": {setting: json.dumps(["key"])}})

    def test_a_key_that_is_not_used_asks_for_nothing_in_the_secret(self):
        names = set(variables(render({"secret": {"keys": {"upstream_api_key": None}}})))
        assert "CTXPRUNE_API_KEYS" in names
        assert "CTXPRUNE_UPSTREAM_API_KEY" not in names

    def test_a_digest_goes_before_a_tag(self):
        image = {"repository": "registry.example/ctxprune", "tag": "1", "digest": "sha256:12"}
        (container,) = render({"image": image})["Deployment"]["spec"]["template"]["spec"]["containers"]
        assert container["image"] == "registry.example/ctxprune@sha256:12"

    def test_an_account_that_is_there_is_used_and_not_made(self):
        objects = render({"serviceAccount": {"create": False, "name": "mine"}})
        assert "ServiceAccount" not in objects
        assert objects["Deployment"]["spec"]["template"]["spec"]["serviceAccountName"] == "mine"

    def test_the_policy_lets_in_and_out_what_it_says(self):
        assert "NetworkPolicy" not in render()
        peers = [{"podSelector": {"matchLabels": {"app": "chat"}}}]
        upstream = {"to": [{"podSelector": {"matchLabels": {"app": "llm"}}}], "ports": [{"port": 8000}]}
        policy = render({"networkPolicy": {"enabled": True, "from": peers, "egress": [upstream]}})["NetworkPolicy"][
            "spec"
        ]
        assert policy["ingress"] == [{"ports": [{"port": "http", "protocol": "TCP"}], "from": peers}]
        assert policy["egress"][1:] == [upstream]
        assert {each["port"] for each in policy["egress"][0]["ports"]} == {53}
