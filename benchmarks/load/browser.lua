-- A browser's twelve header fields (wrk adds Host), the same in every request. What the file arguments say may follow:
-- wrk -s load/browser.lua URL -- METHOD BODY_BYTES CONNECTION CHANGING
local BROWSER = {
  ["User-Agent"] = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
  ["Accept"] = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
  ["Accept-Language"] = "en-GB,en;q=0.7,de;q=0.3",
  ["Accept-Encoding"] = "gzip, deflate, br, zstd",
  ["Referer"] = "http://shop.example.com/catalogue/shoes?page=0000000007&sort=price",
  ["Cookie"] = "consent=yes; basket=8f14e45fceea167a5a36dedd4bea2543; theme=dark; _ga=GA1.1.1234567890.1234567890",
  ["traceparent"] = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
  ["Sec-Fetch-Dest"] = "document",
  ["Sec-Fetch-Mode"] = "navigate",
  ["Sec-Fetch-Site"] = "same-origin",
}
local prepared, pieces, count

function init(args)
  local method, bytes, connection, changing = args[1] or "GET", tonumber(args[2] or "0"), args[3] or "keep-alive", args[4]
  wrk.method = method
  for name, value in pairs(BROWSER) do wrk.headers[name] = value end
  wrk.headers["Connection"] = connection
  if bytes > 0 then wrk.body = string.rep("x", bytes) end
  prepared = wrk.format()
  if changing ~= "changing" then return end
  -- Cut where the trace id and the page in the referer stand, whichever comes first: only those digits differ.
  count = 0
  local trace, page = "0af7651916cd43dd8448eb211c80319c", "page=0000000007"
  local t, p = prepared:find(trace, 1, true), prepared:find(page, 1, true) + 5
  if t < p then
    pieces = { prepared:sub(1, t - 1), "%032x", prepared:sub(t + 32, p - 1), "%010d", prepared:sub(p + 10) }
  else
    pieces = { prepared:sub(1, p - 1), "%010d", prepared:sub(p + 10, t - 1), "%032x", prepared:sub(t + 32) }
  end
end

function request()
  if not pieces then return prepared end
  count = count + 1
  return pieces[1] .. pieces[2]:format(count) .. pieces[3] .. pieces[4]:format(count) .. pieces[5]
end
