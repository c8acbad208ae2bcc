"""deploy/ says what the server can do: the manifest is read beside the application, its settings and the Dockerfile."""

import re
import shutil
import subprocess
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest
import yaml
from starlette.testclient import TestClient

from ctxprune.cli import main
from ctxprune.integrations.server import create_app
from ctxprune.integrations.server.settings import Settings

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
DOCKERFILE = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
LIGHT = (DEPLOY / "Dockerfile.light").read_text(encoding="utf-8")
SCRIPT = DEPLOY / "try_image.sh"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

MANIFEST = {each["kind"]: each for each in yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text(encoding="utf-8"))}
TEMPLATE = MANIFEST["Deployment"]["spec"]["template"]
POD = TEMPLATE["spec"]
(CONTAINER,) = POD["containers"]
VARIABLES = {each["name"]: each for each in CONTAINER["env"]}


def field(variable: str) -> str:
    return variable.removeprefix("CTXPRUNE_").lower()


def is_secret(variable: str) -> bool:
    return "SecretStr" in str(Settings.model_fields[field(variable)].annotation)


@pytest.fixture
def settings(monkeypatch):
    """As the pod reads them, with something in place of the secrets."""
    for name, variable in VARIABLES.items():
        stand_in = '["key"]' if "tuple" in str(Settings.model_fields[field(name)].annotation) else "key"
        monkeypatch.setenv(name, variable.get("value", stand_in))
    return Settings()


class TestManifest:
    def test_variables_are_settings_of_the_server(self):
        assert {name for name in VARIABLES if field(name) not in Settings.model_fields} == set()
        assert all(name.startswith("CTXPRUNE_") for name in VARIABLES)

    def test_keys_come_from_the_secret_and_stand_nowhere(self):
        secrets = {name: variable for name, variable in VARIABLES.items() if is_secret(name)}
        assert "CTXPRUNE_API_KEYS" in secrets
        for variable in secrets.values():
            assert "value" not in variable
            assert set(variable["valueFrom"]) == {"secretKeyRef"}
        assert "Secret" not in MANIFEST

    def test_the_secret_has_the_keys_that_the_head_says_to_make(self):
        head = (DEPLOY / "kubernetes.yaml").read_text(encoding="utf-8").split("apiVersion")[0]
        references = [each["valueFrom"]["secretKeyRef"] for each in VARIABLES.values() if "valueFrom" in each]
        for reference in references:
            assert f"create secret generic {reference['name']} " in head
            assert re.search(rf"--from-(literal|file)={reference['key']}=", head)

    def test_the_server_takes_the_settings_and_asks_for_a_key(self, settings):
        assert settings.api_keys

    def test_grace_is_longer_than_the_way_out_takes(self, settings):
        assert POD["terminationGracePeriodSeconds"] > settings.drain_seconds + settings.shutdown_seconds

    def test_probes_and_metrics_are_routes_that_need_no_key(self, settings):
        client = TestClient(create_app(settings))  # not started, so not ready
        scraped = TEMPLATE["metadata"]["annotations"]["prometheus.io/path"]
        alive, ready = (CONTAINER[name]["httpGet"]["path"] for name in ("livenessProbe", "readinessProbe"))
        assert client.get("/v1/compressors").status_code == 401
        assert [client.get(path).status_code for path in (scraped, alive, ready)] == [200, 200, 503]

    def test_probes_and_the_service_name_the_port_that_the_image_listens_on(self):
        (port,) = CONTAINER["ports"]
        for probe in ("livenessProbe", "readinessProbe"):
            assert CONTAINER[probe]["httpGet"]["port"] == port["name"]
        assert [each["targetPort"] for each in MANIFEST["Service"]["spec"]["ports"]] == [port["name"]]
        assert f'"--port", "{port["containerPort"]}"' in DOCKERFILE
        assert f"EXPOSE {port['containerPort']}\n" in DOCKERFILE
        assert TEMPLATE["metadata"]["annotations"]["prometheus.io/port"] == str(port["containerPort"])

    def test_service_and_budget_choose_the_pods(self):
        labels = TEMPLATE["metadata"]["labels"]
        assert MANIFEST["Deployment"]["spec"]["selector"]["matchLabels"] == labels
        assert MANIFEST["Service"]["spec"]["selector"] == labels
        assert MANIFEST["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels
        assert MANIFEST["PodDisruptionBudget"]["spec"]["minAvailable"] < MANIFEST["Deployment"]["spec"]["replicas"]

    def test_memory_is_limited_and_both_are_requested(self):
        assert set(CONTAINER["resources"]["requests"]) == {"cpu", "memory"}
        assert "memory" in CONTAINER["resources"]["limits"]

    def test_runs_as_the_images_user_who_is_not_root(self):
        user, group = re.search(r"^USER (\d+):(\d+)$", DOCKERFILE, re.MULTILINE).groups()
        context = POD["securityContext"]
        assert context["runAsNonRoot"] is True
        assert (context["runAsUser"], context["runAsGroup"]) == (int(user), int(group))
        assert 0 not in (int(user), int(group))

    def test_may_do_nothing_that_a_server_need_not(self):
        context = CONTAINER["securityContext"]
        assert context["readOnlyRootFilesystem"] is True
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert POD["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault"
        assert POD["automountServiceAccountToken"] is False

    def test_what_can_be_written_to_is_bounded(self):
        volumes = {each["name"]: each for each in POD.get("volumes", [])}
        mounts = {each["name"]: each["mountPath"] for each in CONTAINER.get("volumeMounts", [])}
        assert set(volumes) == set(mounts)
        assert all("sizeLimit" in each["emptyDir"] for each in volumes.values())

    def test_image_is_this_version_here_and_in_the_kustomization(self):
        name, tag = CONTAINER["image"].split(":")
        assert tag == PROJECT["project"]["version"]
        kustomization = yaml.safe_load((DEPLOY / "kustomization.yaml").read_text(encoding="utf-8"))
        assert kustomization["resources"] == ["kubernetes.yaml"]
        assert [each["name"] for each in kustomization["images"]] == [name]
        assert [each["newTag"] for each in kustomization["images"]] == [tag]


class TestDockerfile:
    def test_torch_is_pinned_to_a_cpu_wheel_before_anything_else_can_bring_another(self):
        installs = re.findall(r"pip install .*", DOCKERFILE)
        assert '--index-url "$TORCH_INDEX" "$(grep \'^torch==\' constraints.txt)+cpu"' in installs[0]
        assert len(installs) == 2
        assert not re.search(r"-index-url (?!\"\$TORCH_INDEX\")", DOCKERFILE)
        pins = re.findall(r"^torch==.*$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)
        assert len(pins) == 1
        assert "+" not in pins[0]

    @pytest.mark.parametrize(("text", "names"), [(DOCKERFILE, ["PYTHON", "TORCH_INDEX"]), (LIGHT, ["PYTHON"])])
    def test_what_can_be_set_is_said_at_its_head(self, text, names):
        head = text[: text.index("\nARG ")]
        arguments = re.findall(r"^ARG (\w+)", text, re.MULTILINE)
        assert arguments == names
        assert all(re.search(rf"^#   {name} ", head, re.MULTILINE) for name in arguments)


class TestLightDockerfile:
    def test_starts_from_the_same_image_and_ends_as_the_same_user(self):
        for pattern in (r"^ARG PYTHON=.*$", r"^USER .*$"):
            assert re.findall(pattern, LIGHT, re.MULTILINE) == re.findall(pattern, DOCKERFILE, re.MULTILINE)

    def test_commands_at_its_head_name_this_version_and_options_that_exist(self, capsys):
        head = LIGHT[: LIGHT.index("\nARG ")]
        assert set(re.findall(r"ctxprune-light:(\S+)", head)) == {PROJECT["project"]["version"]}
        (job,) = re.findall(r"^#     (\w+) questions\.jsonl out/ (--.*)$", head, re.MULTILINE)
        assert main([job[0], "--help"]) == 0
        shown = capsys.readouterr().out
        assert all(option in shown for option in re.findall(r"--\w+", job[1]))

    def test_what_is_copied_was_built_with_the_pins_and_without_pip(self):
        assert "venv --without-pip /venv" in LIGHT
        installs = re.findall(r"pip .*?install .*", LIGHT)
        assert installs and all("-c constraints.txt" in each for each in installs)


def is_sent(path: str) -> bool:
    """Docker's rule: the last pattern that fits a file or a folder above it decides; `!` lets in again."""
    sent = True
    for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines():
        pattern = line.strip().removeprefix("!").rstrip("/")
        if pattern and not line.startswith("#") and any(fits(pattern, part) for part in with_parents(path)):
            sent = line.startswith("!")
    return sent


def with_parents(path: str) -> list[str]:
    return [path, *map(str, Path(path).parents)][:-1]


def fits(pattern: str, path: str) -> bool:
    if pattern.startswith("**/"):
        return fnmatch(path.rsplit("/", maxsplit=1)[-1], pattern.removeprefix("**/"))
    return path.count("/") == pattern.count("/") and fnmatch(path, pattern)


class TestContext:
    @pytest.mark.parametrize(
        "path",
        [
            ".git/config",
            ".venv/bin/python",
            ".venv-all/lib/torch.so",
            "build/wheel/ctxprune.whl",
            "dist/ctxprune.whl",
            "runs/server/report.json",
            "out/answers.jsonl",
            ".mypy_cache/3.11/cache.json",
            ".pytest_cache/README.md",
            ".env",
            "tests/data/model.onnx",
            "ctxprune_rag.egg-info/PKG-INFO",
            "ctxprune/text/__pycache__/words.cpython-311.pyc",
            "eval/runs/answers.jsonl",
            "trainers/.env",
            "integrations/server/.mypy_cache/cache.json",
            "trainers/provence/out/model.onnx",
            "ctxprune/notes.pyc",
        ],
    )
    def test_leaves_out(self, path):
        assert not is_sent(path)

    def test_has_what_the_wheel_and_the_dockerfile_need(self):
        folders = {name.split(".")[0] for name in PROJECT["tool"]["setuptools"]["packages"]}
        folders |= set(PROJECT["tool"]["setuptools"]["package-dir"].values())
        files = [
            "pyproject.toml",
            "constraints.txt",
            PROJECT["project"]["readme"],
            *PROJECT["project"]["license-files"],
        ]
        assert [path for path in (*files, *(f"{folder}/__init__.py" for folder in folders)) if not is_sent(path)] == []
        assert is_sent("light/build.py")
        assert is_sent("ctxprune/bundled/provence-mini/model.onnx")
        assert is_sent("integrations/server/playground/index.html")
        assert is_sent("eval/run/__init__.py")


class TestScript:
    def test_is_bash(self):
        checked = subprocess.run(["bash", "-n", SCRIPT], capture_output=True, text=True)
        assert (checked.returncode, checked.stderr) == (0, "")
        if shutil.which("shellcheck"):
            checked = subprocess.run(["shellcheck", SCRIPT], capture_output=True, text=True)
            assert (checked.returncode, checked.stdout) == (0, "")

    def test_waits_as_long_as_the_manifest(self):
        (grace,) = re.findall(r"^GRACE_SECONDS=(\d+)", SCRIPT.read_text(encoding="utf-8"), re.MULTILINE)
        assert int(grace) == POD["terminationGracePeriodSeconds"]

    def test_builds_with_arguments_that_the_dockerfile_has(self):
        named = set(re.findall(r"--build-arg (\w+)=", SCRIPT.read_text(encoding="utf-8")))
        assert named
        assert named <= set(re.findall(r"^ARG (\w+)", DOCKERFILE, re.MULTILINE))
