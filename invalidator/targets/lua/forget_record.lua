-- Removes our record if it is still the one that was looked at.
--
-- KEYS[1]  the record's key
-- ARGV     1: the expected content
-- reply    1 when there is none any more, 0 when it is another one by now

local kept = redis.call('GET', KEYS[1])
if kept and kept ~= ARGV[1] then
  return 0
end
redis.call('UNLINK', KEYS[1])
return 1
