// What Node users write: pg-logical-replication with flow control, node-redis, one UNLINK per transaction.
import { LogicalReplicationService, PgoutputPlugin } from 'pg-logical-replication';
import { createClient } from 'redis';

const [dsn, url, slot, end] = process.argv.slice(2);
const lsn = (text) => { const [high, low] = text.split('/'); return (BigInt(`0x${high}`) << 32n) | BigInt(`0x${low}`); };
const last = lsn(end);
const redis = createClient({ url });
await redis.connect();
const service = new LogicalReplicationService({ connectionString: dsn }, { acknowledge: { auto: true, timeoutSeconds: 1 }, flowControl: { enabled: true } });
const plugin = new PgoutputPlugin({ protoVersion: 1, publicationNames: ['bench_full'] });
const keys = new Set();
let started;
const done = () => { console.log((performance.now() - started) / 1000); process.exit(0); };
service.on('data', async (position, message) => {
  const row = message.new ?? message.old ?? message.key;
  if (row?.id !== undefined && row.id !== null) keys.add(`article:${row.id}`);
  if (message.new?.slug) keys.add(`article:slug:${message.new.slug}`);
  if (message.tag === 'commit' && keys.size) { const batch = [...keys]; keys.clear(); await redis.unlink(batch); }
  if (lsn(position) >= last) done();
});
service.on('heartbeat', (position) => { if (lsn(position) >= last) done(); });
service.on('error', (error) => { console.error(error); process.exit(1); });
started = performance.now();
await service.subscribe(plugin, slot);
