-- Takes from each of several buckets, or from none: the generic cell rate algorithm, as `gcra.rs` has it in process.
--
-- A key holds the time at which its bucket is full again, and is gone when it is. Time is the server's, so that instances
-- need not agree on it. Numbers here are exact to 2^53 only: times are pairs of microseconds and the nanoseconds beyond.
--
-- KEYS: the buckets. ARGV, four for each: what is taken and what an empty bucket lacks, as pairs.
-- Returns 1 if all had enough, else 0; then for each how long it takes until it is full, before anything was taken.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]

local function keep(key, micros, nanos)
  local millis = math.ceil(micros / 1000) + 1
  redis.call('SET', key, string.format('%.0f:%.0f', now + micros, nanos), 'PX', string.format('%.0f', millis))
end

local answer, after, passes = { 1 }, {}, true
for place, key in ipairs(KEYS) do
  local first = (place - 1) * 4
  local cost, cost_nanos = tonumber(ARGV[first + 1]), tonumber(ARGV[first + 2])
  local most, most_nanos = tonumber(ARGV[first + 3]), tonumber(ARGV[first + 4])
  local lacks, lacks_nanos = 0, 0
  local kept = redis.call('GET', key)
  if kept then
    local micros, nanos = string.match(kept, '^(%d+):(%d+)$')
    if micros and tonumber(micros) >= now then
      lacks, lacks_nanos = tonumber(micros) - now, tonumber(nanos)
    end
    -- Kept under a slower rate, or before the clock was set back: empty at most, from the first look on.
    if lacks > most or (lacks == most and lacks_nanos > most_nanos) then
      lacks, lacks_nanos = most, most_nanos
      keep(key, lacks, lacks_nanos)
    end
  end
  local sum, sum_nanos = lacks + cost, lacks_nanos + cost_nanos
  if sum_nanos >= 1000 then
    sum, sum_nanos = sum + 1, sum_nanos - 1000
  end
  if sum > most or (sum == most and sum_nanos > most_nanos) then
    passes = false
  end
  after[place] = { sum, sum_nanos }
  answer[#answer + 1] = lacks
  answer[#answer + 1] = lacks_nanos
end
if not passes then
  answer[1] = 0
  return answer
end
for place, key in ipairs(KEYS) do
  if after[place][1] > 0 or after[place][2] > 0 then
    keep(key, after[place][1], after[place][2])
  end
end
return answer
