// Makes unixfs_foreign.car and prints its roots, with implementations that share no code with ours.
// npm install ipfs-unixfs-importer@17 @ipld/car @ipld/dag-cbor blockstore-core && node unixfs_foreign.mjs
import { importer } from 'ipfs-unixfs-importer'
import { fixedSize } from 'ipfs-unixfs-importer/chunker'
import { balanced, trickle, flat } from 'ipfs-unixfs-importer/layout'
import { MemoryBlockstore } from 'blockstore-core'
import { UnixFS } from 'ipfs-unixfs'
import * as dagPB from '@ipld/dag-pb'
import * as dagCBOR from '@ipld/dag-cbor'
import { CarWriter } from '@ipld/car'
import { CID } from 'multiformats/cid'
import { sha256 } from 'multiformats/hashes/sha2'
import fs from 'fs'
import { Readable } from 'stream'
const blocks = new Map()
const store = { async put (cid, block) { let b=block; if (b[Symbol.asyncIterator]||b[Symbol.iterator]&&!(b instanceof Uint8Array)) { const p=[]; for await (const x of b) p.push(x); b=Buffer.concat(p)}; blocks.set(cid.toString(), { cid, bytes: b }); return cid } }
const pattern = n => Uint8Array.from({ length: n }, (_, i) => i % 251)
const roots = {}
async function add (name, what, opts) {
  let last
  for await (const e of importer(what, store, opts)) last = e
  roots[name] = last.cid
}
const chunker = fixedSize({ chunkSize: 64 })
const base = { chunker, rawLeaves: false, cidVersion: 0, layout: balanced({ maxChildrenPerNode: 4 }) }
const file = content => [{ path: 'file', content }]
await add('balanced, version 0, leaves in nodes', file(pattern(3000)), base)
await add('balanced, leaves of type Raw', file(pattern(3000)), { ...base, cidVersion: 1, leafType: 'raw' })
await add('balanced, raw leaves', file(pattern(3000)), { ...base, cidVersion: 1, rawLeaves: true })
await add('trickle, version 0, leaves in nodes', file(pattern(3000)), { ...base, layout: trickle({ maxChildrenPerNode: 3 }), reduceSingleLeafToSelf: false })
await add('trickle, raw leaves', file(pattern(3000)), { ...base, cidVersion: 1, rawLeaves: true, layout: trickle({ maxChildrenPerNode: 3 }) })
await add('flat', file(pattern(3000)), { ...base, layout: flat() })
await add('one leaf with a node above', file(pattern(50)), { ...base, rawLeaves: true, cidVersion: 1, reduceSingleLeafToSelf: false })
await add('empty, version 0', file(new Uint8Array(0)), base)
await add('modes and times', [
  { path: 'd/run.sh', content: pattern(10), mode: 0o755, mtime: { secs: 1700000000n, nsecs: 5 } },
  { path: 'd/secret', content: pattern(200), mode: 0o600 },
  { path: 'd/setuid', content: pattern(10), mode: 0o4755 },
  { path: 'd/plain', content: pattern(10) }
], { ...base, cidVersion: 1, rawLeaves: true, wrapWithDirectory: false })
await add('folder with a mode', [{ path: 'd', mode: 0o700 }], { ...base, cidVersion: 1 })
await add('large file with a mode', [{ path: 'f', content: pattern(200), mode: 0o755 }], { ...base, cidVersion: 1, rawLeaves: true })
await add('sharded folder', Array.from({ length: 40 }, (_, i) => ({ path: `d/file ${i}`, content: pattern(i) })), { ...base, cidVersion: 1, rawLeaves: true, shardSplitThresholdBytes: 100 })
const put = async (codec, code, node) => { const bytes = codec.encode(node); const cid = CID.create(1, code, await sha256.digest(bytes)); blocks.set(cid.toString(), { cid, bytes }); return { cid, size: bytes.length } }
const pb = node => put(dagPB, dagPB.code, dagPB.prepare(node))
const link = async target => pb({ Data: new UnixFS({ type: 'symlink', data: new TextEncoder().encode(target) }).marshal(), Links: [] })
const plain = await pb({ Data: new UnixFS({ type: 'file', data: pattern(20) }).marshal(), Links: [] })
const folder = async entries => pb({ Data: new UnixFS({ type: 'directory' }).marshal(), Links: entries.map(([Name, e]) => ({ Name, Tsize: e.size, Hash: e.cid })) })
const sub = await folder([['up', await link('../file')], ['beside', await link('./up')]])
roots['folder with links'] = (await folder([['file', plain], ['link', await link('file')], ['sub', sub]])).cid
roots['folder with an absolute link'] = (await folder([['bad', await link('/etc/passwd')]])).cid
roots['folder with a link out of it'] = (await folder([['file', plain], ['sub', await folder([['bad', await link('../../file')]])]])).cid
roots['folder with a link out of it through another'] = (await folder([['sub', await folder([['root', await link('..')]])], ['bad', await link('sub/root/../x')]])).cid
// data in an inner node, links without Tsize
const leaf = pattern(120)
const parts = [await pb({ Data: new UnixFS({ type: 'raw', data: leaf.slice(40, 80) }).marshal(), Links: [] }), await pb({ Data: new UnixFS({ type: 'file', data: leaf.slice(80) }).marshal(), Links: [] })]
const inner = new UnixFS({ type: 'file', data: leaf.slice(0, 40) }); inner.addBlockSize(40n); inner.addBlockSize(40n)
roots['data in an inner node, no Tsize'] = (await pb({ Data: inner.marshal(), Links: parts.map(p => ({ Name: '', Hash: p.cid })) })).cid
roots['dag-cbor'] = (await put(dagCBOR, dagCBOR.code, { name: 'two files', numbers: [0, -1, 23, 24, 256, 65536, 2 ** 40, 1.5], bytes: pattern(3), nothing: null, yes: true, inside: { folder: roots['folder with links'], file: roots['flat'] } })).cid
const { writer, out } = CarWriter.create(Object.values(roots))
Readable.from(out).pipe(fs.createWriteStream('unixfs_foreign.car'))
for (const { cid, bytes } of blocks.values()) await writer.put({ cid, bytes })
await writer.close()
console.log(JSON.stringify(Object.fromEntries(Object.entries(roots).map(([k, v]) => [k, v.toString()])), null, 2))
