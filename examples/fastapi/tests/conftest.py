import json
import os
import subprocess
import time

import pytest


@pytest.fixture(scope="session")
def gateway(tmp_path_factory):
    """The application behind `palisade serve`, on free ports and with a state of its own: the URLs by listener."""
    folder = tmp_path_factory.mktemp("palisade")
    command = ["palisade", "serve", "--http-port=0", "--https-port=0", "--admin-port=0", f"--ready-file={folder}/ready"]
    with subprocess.Popen(command, env=os.environ | {"PALISADE__SERVER__STATE": f'"{folder}"'}) as process:
        while not (folder / "ready").exists():
            assert process.poll() is None, "it did not start: its reason is in the captured output"
            time.sleep(0.05)
        yield json.loads((folder / "ready").read_text())
        process.terminate()
