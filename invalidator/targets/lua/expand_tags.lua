--!df flags=allow-undeclared-keys
-- (for Dragonfly alone, which else lets a script touch its KEYS only: the members of a set are not among them)
--
-- Unlinks the members of tag sets and then the sets, as far as the budget goes.
--
-- KEYS    the keys of the tag sets, in the order in which they are worked off
-- ARGV    1: budget, how many members and sets may be touched in this call (the server stands still meanwhile)
--         2: '1' when the first set was cut by an earlier call (see below)
-- reply   {sets finished, counted from the first one; members that existed; names that held no set;
--          1 when the first unfinished set is cut}
--
-- The caller calls again with the sets that are not finished. Each call happens as a whole, and a member leaves its
-- set only after it is unlinked: a crash between two calls, or a refused UNLINK, loses nothing.
--
-- A set larger than the budget is cut: renamed to its key with "\0drain" behind it (no tag can hold a NUL). What is
-- added from then on goes to a new set, so the work ends however fast members are added. A cut set that a crash left
-- behind is found by the next call for the same tag.
--
-- No shebang line: Redis before 7 does not know it, and without one a script that calls only what needs no memory
-- (as here) is let through when the server is out of memory.

local unpack = table.unpack or unpack  -- where Lua is newer than 5.1, as in Dragonfly
local CHUNK = 1000  -- unpack() has a limit near 8000 values
local SIZE = {set = 'SCARD', zset = 'ZCARD', hash = 'HLEN'}

local budget = tonumber(ARGV[1])
local left = budget
local removed = 0
local no_set = 0

local function unlink(members)
  for first = 1, #members, CHUNK do
    local last = math.min(first + CHUNK - 1, #members)
    removed = removed + redis.call('UNLINK', unpack(members, first, last))
  end
end

local function members_of(key, kind)
  if kind == 'set' then
    return redis.call('SMEMBERS', key)
  elseif kind == 'zset' then
    return redis.call('ZRANGE', key, 0, -1)
  end
  return redis.call('HKEYS', key)
end

local function finish(key, kind)
  local names = members_of(key, kind)
  names[#names + 1] = key  -- last: a refused UNLINK of a member must leave the set
  unlink(names)
  removed = removed - 1
end

-- Unlinks and forgets up to n members (not more than CHUNK); returns how many.
local function take(key, kind, n)
  local members
  if kind == 'set' then
    members = redis.call('SRANDMEMBER', key, n)
    unlink(members)
    redis.call('SREM', key, unpack(members))
  elseif kind == 'zset' then
    members = redis.call('ZRANGE', key, 0, n - 1)
    unlink(members)
    redis.call('ZREMRANGEBYRANK', key, 0, n - 1)
  else
    members = redis.call('HRANDFIELD', key, n)
    if #members == 0 then
      finish(key, kind)  -- HLEN still counts fields that have expired; there may be nothing to draw
      return 1
    end
    unlink(members)
    redis.call('HDEL', key, unpack(members))
  end
  return #members
end

-- Goes on with a cut set; returns whether it is gone.
local function drain(key, kind)
  while redis.call('EXISTS', key) == 1 do
    if left <= 0 then
      return false
    end
    left = left - take(key, kind, math.min(left, CHUNK))
  end
  return true
end

-- Works off the set itself; returns whether it is finished, and whether it is now cut.
local function expand(key, cut_key)
  local kind = redis.call('TYPE', key).ok
  if kind == 'none' then
    return true
  elseif not SIZE[kind] then
    -- Whatever stands under a tag's name was meant to go, and must not be tried again for ever.
    no_set = no_set + 1
    removed = removed + redis.call('UNLINK', key)
    return true
  end
  local size = redis.call(SIZE[kind], key)
  if size <= left then
    finish(key, kind)
    left = left - size
    return true
  elseif size <= budget / 2 then
    return false  -- fits into the next call as a whole
  end
  redis.call('RENAME', key, cut_key)
  return drain(cut_key, kind), true
end

local function work_off(key, is_cut)
  local cut_key = key .. '\0drain'
  local kind = redis.call('TYPE', cut_key).ok
  left = left - 1
  if SIZE[kind] then
    if not drain(cut_key, kind) then
      return false, is_cut
    end
    if is_cut then
      return true
    end
  end
  if left <= 0 then
    return false
  end
  return expand(key, cut_key)
end

local finished = 0
local is_cut = ARGV[2] == '1'
for _, key in ipairs(KEYS) do
  local is_finished
  is_finished, is_cut = work_off(key, is_cut)
  if not is_finished then
    break
  end
  finished = finished + 1
  is_cut = false
end
return {finished, removed, no_set, is_cut and 1 or 0}
