import subprocess, time, os
from support.gcs import GcsServer
from support.mounting import mounted
import sys; sys.path.insert(0,'/work/main/tests/mount')
from proxy import Proxy
def test_gone(bucket):
    bucket.put("d/b.dat", b"b")
    with Proxy(bucket.environment) as proxy:
        t=time.monotonic()
        def lap(s):
            nonlocal t
            n=time.monotonic(); print(f"{s}: {n-t:.2f}"); t=n
        with mounted(f"{bucket.url}/d", environment=proxy.environment) as point:
            lap("mounted")
            before=len(proxy.requests)
            proxy.stop_listening(); lap("stop")
            r=subprocess.run(["cat", point/"b.dat"], stderr=subprocess.PIPE); lap("cat"); print(r)
            print(len(proxy.requests)-before)
            print((point/".octuefs/errors").read_text())
            lap("errors")
        lap("unmount")
