-- Replaces our record if it is still the one that we wrote last.
--
-- KEYS[1]  the record's key
-- ARGV     1: the new content; 2: '1' if a record is expected, '0' if none is; 3: the expected content
-- reply    what is kept now, or false for nothing: the new content if it was replaced
--
-- In one step on the server: between a GET and a SET of ours a fail-over could put an older server in the place, and
-- the SET would wipe out the only trace of it.

local kept = redis.call('GET', KEYS[1])
local expected = ARGV[2] == '1' and ARGV[3] or false
if kept ~= expected then
  return kept
end
redis.call('SET', KEYS[1], ARGV[1])
return ARGV[1]
