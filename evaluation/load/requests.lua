-- wrk: POSTs the bodies of a file, line after line, from the start again after the last one.
-- USERUSERUSERUSERUSERUSER stands for the 24 hex digits of a user who has never asked before.
--
--   wrk -s requests.lua URL -- FILE PREFIX     (PREFIX: 12 hex digits, another one for every run)

local PLACEHOLDER = ("USER"):rep(6)

local threads = {}
local heads, middles, tails = {}, {}, {}
local line, user

function setup(thread)
  -- Each thread has its own billions of users, and begins at its own place in the file.
  thread:set("number", #threads)
  threads[#threads + 1] = thread
end

-- The part of a request that stands before its body, by the length of the body.
local openings = {}

local function opening(body, length)
  if not openings[length] then
    local text = wrk.format("POST", nil, { ["Content-Type"] = "application/json" }, body)
    openings[length] = text:sub(1, #text - #body)
  end
  return openings[length]
end

-- A request is made here but for its user, so that `request` costs two or three concatenations:
-- the generator shares the cores with what it measures.
local function prepare(body)
  local parts = {}
  local from = 1
  while true do
    local first, last = body:find(PLACEHOLDER, from, true)
    parts[#parts + 1] = body:sub(from, first and first - 1)
    if not first then break end
    from = last + 1
  end
  parts[1] = opening(body, #body) .. parts[1]
  heads[#heads + 1] = parts[1]
  middles[#heads] = parts[3] and parts[2] or false
  tails[#heads] = parts[3] or parts[2] or false
end

function init(args)
  for body in io.lines(args[1]) do prepare(body) end
  prefix = args[2]
  statuses = {}
  line = math.floor(#heads / 7 * number) % #heads
  user = number * 2 ^ 40
end

function request()
  line = line % #heads + 1
  local tail = tails[line]
  if not tail then return heads[line] end
  user = user + 1
  local id = prefix .. string.format("%012x", user)
  local middle = middles[line]
  if middle then return heads[line] .. id .. middle .. id .. tail end
  return heads[line] .. id .. tail
end

function response(status)
  local key = tostring(status)
  statuses[key] = (statuses[key] or 0) + 1
end

function done(summary, latency, requests)
  local counts = {}
  for _, thread in ipairs(threads) do
    for status, count in pairs(thread:get("statuses")) do
      counts[status] = (counts[status] or 0) + count
    end
  end
  local fields = {}
  for status, count in pairs(counts) do
    fields[#fields + 1] = string.format('"%s":%d', status, count)
  end
  local e = summary.errors
  -- Times in microseconds.
  io.write(string.format(
    'RESULT {"duration":%d,"errors":%d,"p50":%d,"p95":%d,"p99":%d,"statuses":{%s}}\n',
    summary.duration, e.connect + e.read + e.write + e.timeout,
    latency:percentile(50), latency:percentile(95), latency:percentile(99),
    table.concat(fields, ",")))
end
