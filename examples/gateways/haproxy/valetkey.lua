-- HAProxy asks valetkey (dialect: haproxy) with the action lua.valetkey, whose argument is the URL of valetkey.
local identity = { "X-Valetkey-Subject", "X-Valetkey-Client", "X-Valetkey-Scope" }

-- refuse ends the request with an answer, which begins with a status.
local function refuse(txn, status, headers, body)
	txn:done(txn:reply({ status = status, headers = headers, body = body }))
end

core.register_action("valetkey", { "http-req" }, function(txn, url)
	-- The headers of the client, without those that HAProxy reports itself. Lists of HAProxy begin at 0.
	local question = {}
	for name, values in pairs(txn.http:req_get_headers()) do
		question[name] = {}
		for i = 0, #values do
			table.insert(question[name], values[i])
		end
	end
	for _, name in ipairs({ "host", "content-length", "transfer-encoding", "connection", "expect" }) do
		question[name] = nil
	end
	question["x-forwarded-method"] = { txn.f:method() }
	question["x-forwarded-uri"] = { txn.f:pathq() }
	question["x-forwarded-proto"] = { txn.f:ssl_fc() == 1 and "https" or "http" }
	question["x-forwarded-host"] = { txn.f:req_fhdr("host") }

	local answer = core.httpclient():get({ url = url, headers = question, timeout = 10000 })
	if answer == nil or answer.status == nil or answer.status < 200 then
		return refuse(txn, 503, { ["retry-after"] = { "5" }, ["cache-control"] = { "no-store" } }, "")
	end
	local headers = {}
	for name, values in pairs(answer.headers) do
		headers[name] = {}
		for i = 0, #values do
			table.insert(headers[name], values[i])
		end
	end
	if answer.status ~= 200 then
		headers["content-length"], headers["connection"], headers["transfer-encoding"] = nil, nil, nil
		return refuse(txn, answer.status, headers, answer.body)
	end

	for _, name in ipairs(identity) do
		local values = headers[name:lower()]
		if values == nil then
			return refuse(txn, 503, {}, "")
		end
		txn.http:req_set_header(name, values[1] or "")
	end
	txn.http:req_del_header("authorization")
	txn.http:req_del_header("dpop")
	if headers["dpop-nonce"] then
		txn:set_var("txn.valetkey_nonce", headers["dpop-nonce"][1])
	end
end, 1)
