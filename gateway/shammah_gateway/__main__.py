"""Start of the gateway: `python -m shammah_gateway`."""

from __future__ import annotations

import uvloop
from shammah.v1 import gateway_pb2_grpc
from shammah_chassis.private import make_private
from shammah_chassis.process import run_process
from shammah_chassis.serving import ServiceParts

from shammah_gateway.config import GatewaySettings
from shammah_gateway.http.opening import open_http
from shammah_gateway.opening import open_gateway
from shammah_gateway.readings import list_readings
from shammah_gateway.server import SERVICE_NAME, GatewayServicer


async def build(settings: GatewaySettings) -> ServiceParts:
    """Open the gateway and its doors."""
    make_private(settings.data_dir)
    gateway = await open_gateway(settings)
    gateway.start()
    try:
        http = await open_http(gateway)
    except BaseException:
        await gateway.close()
        raise
    return ServiceParts(
        servicers=[(gateway_pb2_grpc.add_GatewayServiceServicer_to_server, GatewayServicer(gateway))],
        service_names=[SERVICE_NAME],
        # It can answer by the teacher whatever is away, so it is ready as soon as it runs.
        ready=lambda: True,
        before_stop=[http.stop_accepting],
        close=[http.close, gateway.close],
        readings=list_readings(gateway),
        ports=http.ports,
    )


def main() -> None:
    """Serve until a signal."""
    run_process(GatewaySettings, name="gateway", build=build, run=uvloop.run)


if __name__ == "__main__":
    main()
