"""Start of the gateway: `python -m shammah_gateway`."""

from __future__ import annotations

import asyncio

from shammah.v1 import gateway_pb2_grpc
from shammah_chassis.logs import configure_logging
from shammah_chassis.serving import ServiceParts, run_service

from shammah_gateway.config import GatewaySettings
from shammah_gateway.gateway import open_gateway
from shammah_gateway.readings import list_readings
from shammah_gateway.server import SERVICE_NAME, GatewayServicer


def main() -> None:
    """Serve until a signal."""
    settings = GatewaySettings.load()
    configure_logging("gateway", settings.log_level)

    async def build() -> ServiceParts:
        gateway = await open_gateway(settings)
        gateway.start()
        return ServiceParts(
            servicers=[(gateway_pb2_grpc.add_GatewayServiceServicer_to_server, GatewayServicer(gateway))],
            service_names=[SERVICE_NAME],
            # It can answer by the teacher whatever is away, so it is ready as soon as it runs.
            ready=lambda: True,
            close=[gateway.close],
            readings=list_readings(gateway),
        )

    asyncio.run(run_service(settings, name="gateway", build=build))


if __name__ == "__main__":
    main()
