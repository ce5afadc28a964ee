-- moonpool.gateway.pages: what the gateway says of itself and of its models:
-- page(gateway, setup, ctx, rest of the path) -> reply, or nil, err.
local core = require "moonpool.core"
local failure = require "moonpool.gateway.dialect".failure
local json = require "moonpool.json"
local may_use = require "moonpool.gateway.jobs".may_use

local now = core.now

local pages = {}

function pages.health(self)
  if self.draining then
    return { status = 503, json = { status = "draining" } }
  end
  return { json = { status = "ok" } }
end

function pages.metrics(_, setup)
  if setup.config.metrics == false then
    return nil, failure("not_found", "there are no metrics here")
  end
  return {
    body = require "moonpool.metrics".text(), headers = { ["content-type"] = "text/plain; version=0.0.4" },
  }
end

-- The models of the configuration; of a single service its own, asked for once a minute.
local function list_models(setup, ctx)
  local list = setup.config.list
  if #list > 0 or not setup.config.default then
    return list
  end
  local up = setup.upstreams[setup.config.default.steps[1].upstream]
  local kept = setup.models
  if not kept or now() - kept.at > 60 then
    local names, err = up:list(math.min(10, ctx.deadline - now()))
    local own = up.state.options.model
    if not names and not own then
      return nil, err
    end
    kept = { at = now(), names = names or { own } }
    setup.models = kept
  end
  return kept.names
end

local function model_object(name)
  return { id = name, object = "model", created = 0, owned_by = "moonpool" }
end

function pages.models(_, setup, ctx)
  local list, err = list_models(setup, ctx)
  if not list then
    return nil, err
  end
  local data = {}
  for _, name in ipairs(list) do
    if may_use(ctx.key, name) then
      data[#data + 1] = model_object(name)
    end
  end
  return { json = { object = "list", data = json.array(data) } }
end

function pages.model(_, setup, ctx, name)
  local list, err = list_models(setup, ctx)
  if not list then
    return nil, err
  end
  for _, known in ipairs(list) do
    if known == name and may_use(ctx.key, name) then
      return { json = model_object(name) }
    end
  end
  return nil, failure("not_found", ("the model '%s' does not exist here"):format(name),
    { code = "model_not_found" })
end

function pages.info(_, setup, ctx)
  local list = list_models(setup, ctx) or {}
  return {
    json = { model_id = list[1] or "", version = core.version, max_client_batch_size = setup.max_inputs },
  }
end

function pages.tags(_, setup, ctx)
  local list, err = list_models(setup, ctx)
  if not list then
    return nil, err
  end
  local models = {}
  for i, name in ipairs(list) do models[i] = { name = name, model = name } end
  return { json = { models = models } }
end

function pages.version()
  return { json = { version = core.version } }
end

return pages
