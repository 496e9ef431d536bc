"""Listens on a port of the sandbox, and hands each connection to the proxy of the host, on a Unix socket."""

import asyncio
import sys


async def main(port, path):
    async def serve(reader, writer):
        try:
            to_host = await asyncio.open_unix_connection(path)
        except OSError:
            writer.close()
            return
        await asyncio.gather(copy(reader, to_host[1]), copy(to_host[0], writer))

    server = await asyncio.start_server(serve, '127.0.0.1', port)
    print('listening', flush=True)
    await server.serve_forever()


async def copy(reader, writer):
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


asyncio.run(main(int(sys.argv[1]), sys.argv[2]))
