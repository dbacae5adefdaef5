-- Says for a while whose our record is, unless somebody else has said so of late.
--
-- KEYS[1]  the key beside the record's
-- ARGV     1: who we are; 2: what we have said last, or empty; 3: milliseconds until it is forgotten,
--          or 0 to look only
-- reply    whose it is now; empty: nobody's

local owner = redis.call('GET', KEYS[1])
if owner and owner ~= ARGV[1] and owner ~= ARGV[2] then
  return owner
end
if ARGV[3] == '0' then
  return owner or ''
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[3])
return ARGV[1]
