// One Helia node on the loopback only, told what to do by lines of JSON; see kubo_child.py.
import { createInterface } from 'node:readline'
import { createReadStream, createWriteStream } from 'node:fs'
import { mkdir } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { once } from 'node:events'
import { noise } from '@chainsafe/libp2p-noise'
import { yamux } from '@chainsafe/libp2p-yamux'
import { withBitswap } from '@helia/bitswap'
import { withLibp2pLight } from '@helia/libp2p'
import { unixfs } from '@helia/unixfs'
import { identify } from '@libp2p/identify'
import { tcp } from '@libp2p/tcp'
import { multiaddr } from '@multiformats/multiaddr'
import { createHeliaLight } from 'helia'
import { CID } from 'multiformats/cid'

const helia = withBitswap(withLibp2pLight(createHeliaLight(), {
  addresses: { listen: ['/ip4/127.0.0.1/tcp/0'] },
  transports: [tcp()],
  connectionEncrypters: [noise()],
  streamMuxers: [yamux()],
  services: { identify: identify() }
}))
await helia.start()
const fs = unixfs(helia)

async function write (cid, path) {
  const stat = await fs.stat(cid)
  if (stat.type === 'directory') {
    await mkdir(path)
    for await (const entry of fs.ls(cid)) {
      await write(entry.cid, join(path, entry.name))
    }
    return
  }
  const out = createWriteStream(path)
  for await (const part of fs.cat(cid)) {
    if (!out.write(part)) await once(out, 'drain')
  }
  out.end()
  await once(out, 'finish')
}

const actions = {
  add: async ({ path }) => String(await fs.addFile({ path: basename(path), content: createReadStream(path) })),
  get: async ({ cid, path }) => { await write(CID.parse(cid), path); return 0 },
  connect: async ({ address }) => { await helia.libp2p.dial(multiaddr(address)); return 0 },
  addresses: async () => helia.libp2p.getMultiaddrs().map(String)
}

console.log(JSON.stringify({ value: 'up' }))
for await (const line of createInterface({ input: process.stdin })) {
  const task = JSON.parse(line)
  try {
    console.log(JSON.stringify({ value: await actions[task.do](task) }))
  } catch (error) {
    console.log(JSON.stringify({ error: String(error.stack) }))
  }
}
