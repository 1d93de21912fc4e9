"""The source bundle: it follows the settings of the service, and its bytes only depend on it."""

import json
import zipfile
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from deploy import config, local, source_bundle
from deploy.config import Config
from pipeline.errors import UserError
from pipeline.serving.settings import Settings as Limits

NAME = "123456789012.dkr.ecr.eu-central-1.amazonaws.com/sound-classifier:v7-0123456789ab"


@pytest.fixture
def held() -> dict[str, str]:
    return source_bundle.files(NAME, config.load())


def changed(service: dict[str, object] | None = None, **environment: object) -> Config:
    content = config.load().model_dump()
    content["environment"] |= environment
    return Config.model_validate({**content, "service": service or {}})


def test_it_names_the_image_and_its_port(held: dict[str, str]) -> None:
    described = json.loads(held["Dockerrun.aws.json"])
    assert described["AWSEBDockerrunVersion"] == "1"
    assert described["Image"]["Name"] == NAME
    assert described["Ports"] == [{"ContainerPort": 3000}]


def test_nginx_lets_through_what_the_service_accepts(held: dict[str, str]) -> None:
    limits = held[".platform/nginx/conf.d/limits.conf"]
    size = int(limits.split("client_max_body_size ")[1].split(";")[0])
    assert Limits().max_bytes < size < Limits().max_bytes * 1.01
    patience = int(limits.split("proxy_read_timeout ")[1].split("s;")[0])
    assert patience > Limits().request_seconds


def test_nginx_and_load_balancer_follow_the_time_limits_of_the_service() -> None:
    chosen = changed(
        {"SOUND_MAX_DECODE_SECONDS": 200, "SOUND_MAX_BYTES": 1_000}, load_balanced=True
    )
    seconds = Limits(max_decode_seconds=200.0).request_seconds
    assert chosen.limits.request_seconds == seconds > Limits().request_seconds
    held = source_bundle.files(NAME, chosen)
    nginx = held[".platform/nginx/conf.d/limits.conf"]
    assert f"proxy_read_timeout {seconds + 5}s;" in nginx
    assert f"proxy_send_timeout {seconds + 5}s;" in nginx
    assert f"client_max_body_size {1_000 + source_bundle.OVERHEAD_BYTES};" in nginx
    assert "larger than 0.001 MB" in held[".platform/nginx/conf.d/elasticbeanstalk/10_refusal.conf"]
    options = YAML(typ="safe").load(held[".ebextensions/options.config"])["option_settings"]
    assert int(options["aws:elbv2:loadbalancer"]["IdleTimeout"]) > seconds + 5
    assert options["aws:elasticbeanstalk:application:environment"] == {
        "SOUND_MAX_DECODE_SECONDS": "200",
        "SOUND_MAX_BYTES": "1000",
    }


def test_the_bundle_on_this_machine_gets_the_settings_of_the_service(
    tmp_path: Path,
) -> None:
    chosen = changed({"SOUND_MAX_BYTES": 1_000})
    source_bundle.write(tmp_path / "bundle.zip", source_bundle.files(NAME, chosen))
    local.unpack(tmp_path / "bundle.zip", tmp_path / "source")
    options = local.container_options(tmp_path / "source")
    assert options[-2:] == ["--env", "SOUND_MAX_BYTES=1000"]


def test_health_is_enhanced_with_readyz_and_logs_are_streamed(held: dict[str, str]) -> None:
    options = YAML(typ="safe").load(held[".ebextensions/options.config"])["option_settings"]
    assert options["aws:elasticbeanstalk:application"] == {"Application Healthcheck URL": "/readyz"}
    assert options["aws:elasticbeanstalk:healthreporting:system"]["SystemType"] == "enhanced"
    assert options["aws:elasticbeanstalk:cloudwatch:logs"]["StreamLogs"] == "true"
    assert options["aws:elasticbeanstalk:command"]["DeploymentPolicy"] == "Immutable"
    assert "aws:elbv2:loadbalancer" not in options


def test_a_load_balancer_waits_longer_than_nginx() -> None:
    seconds = Limits().request_seconds
    options = source_bundle.options(changed(load_balanced=True))
    assert int(options["aws:elbv2:loadbalancer"]["IdleTimeout"]) > seconds + 5
    assert options["aws:autoscaling:asg"] == {"MinSize": "1", "MaxSize": "2"}


def test_the_archive_only_depends_on_its_content(held: dict[str, str], tmp_path: Path) -> None:
    source_bundle.write(tmp_path / "a.zip", held)
    source_bundle.write(tmp_path / "b.zip", dict(reversed(held.items())))
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert sorted(archive.namelist()) == sorted(held)
        assert archive.getinfo(source_bundle.HOOK).external_attr >> 16 == 0o755


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("  update: Sometimes", "config.yaml: environment.update: Input should be 'Immutable'"),
        ("  colour: red", "config.yaml: environment.colour: Extra inputs are not permitted."),
        ("name: sound-", "config.yaml: name: String should match pattern"),
        ("name: a-name-that-is-much-too-long-x", "config.yaml: name: String should have at most"),
        ("  log_days: 2", "config.yaml: environment.log_days: Input should be 1, 3,"),
        ("service: { SOUND_MAX_BYTE: 1 }", "config.yaml: SOUND_MAX_BYTE is not a setting: did you"),
        ("service: { MAX_BYTES: 1 }", "config.yaml: MAX_BYTES does not begin with SOUND_"),
    ],
)
def test_a_wrong_setting_is_rejected_by_name(line: str, sentence: str, tmp_path: Path) -> None:
    key = line.partition(":")[0]
    kept = [old for old in config.FILE.read_text().splitlines() if not old.startswith(key)]
    place = kept.index("environment:") + line.startswith(" ")
    file = tmp_path / "config.yaml"
    file.write_text("\n".join([*kept[:place], line, *kept[place:]]))
    with pytest.raises(UserError) as refused:
        config.load(file)
    assert str(refused.value).startswith(sentence)
