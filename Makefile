# Moonpool. `make`, `make test [T=name]`, `make install PREFIX= DESTDIR=`, `make lint fmt asan tsan bench bench-check`.
# Everything built lands in $(BUILD). What building needs, ./scripts/setup installs.

BUILD   ?= build
PREFIX  ?= /usr/local
DESTDIR ?=
CC      ?= cc
PKG_CONFIG ?= pkg-config
O       ?= -O2 -g
EXTRA   ?=

VERSION := $(shell sed -n 's/^\#define MP_VERSION_STRING "\(.*\)"/\1/p' runtime/include/moonpool.h)

# Only the binding: the engine and its libraries need no libcrypto of their own.
CRYPTO_LIBS  := $(shell $(PKG_CONFIG) --libs libcrypto 2>/dev/null)
# Only the prompt of the binary: neither the module nor libmoonpool has it.
EDIT_LIBS    := $(shell $(PKG_CONFIG) --libs libedit 2>/dev/null)
LUA_CFLAGS   := $(shell $(PKG_CONFIG) --cflags lua5.4 2>/dev/null)
DEPS_CFLAGS  := $(shell $(PKG_CONFIG) --cflags libcurl libuv libcjson zlib libzstd 2>/dev/null)
DEPS_LIBS    := $(shell $(PKG_CONFIG) --libs libcurl libuv libcjson zlib libzstd 2>/dev/null) -lpthread -lm
# The static Lua goes whole into the binary, which exports it to C modules: they may call what
# we do not.
LUA_STATIC   := $(shell $(PKG_CONFIG) --variable=libdir lua5.4 2>/dev/null)/liblua5.4.a
CMOCKA_LIBS  := $(shell $(PKG_CONFIG) --libs cmocka 2>/dev/null)

HARDEN_C := -D_FORTIFY_SOURCE=2 -fstack-protector-strong
HARDEN_L := -Wl,-z,relro,-z,now
WARN     := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wno-missing-field-initializers
CFLAGS_ALL = -std=c11 -D_GNU_SOURCE -fPIC -fvisibility=hidden -pthread $(O) $(WARN) $(HARDEN_C) \
	-Iruntime -Iruntime/include $(DEPS_CFLAGS) $(CFLAGS) $(EXTRA)


# llhttp: the system's where pkg-config knows one, else the sources that Debian's node-llhttp installs.
ifeq ($(shell $(PKG_CONFIG) --exists libllhttp 2>/dev/null && echo yes),yes)
LLHTTP_CFLAGS := $(shell $(PKG_CONFIG) --cflags libllhttp)
LLHTTP_LIBS   := $(shell $(PKG_CONFIG) --libs libllhttp)
LLHTTP_SRC    :=
else
LLHTTP_DIR    ?= /usr/share
# llhttp 8 is lax unless told: without this a bare LF or a space too many goes through.
LLHTTP_CFLAGS := -isystem $(LLHTTP_DIR)/include/llhttp -DLLHTTP_STRICT_MODE=1
LLHTTP_LIBS   :=
LLHTTP_SRC    := $(wildcard $(LLHTTP_DIR)/llhttp/*.c)
endif
ARGPARSE_LUA ?= /usr/share/lua/5.4/argparse.lua

# ---- sources by room; which room may use which: runtime/README.md ---------------------------------

ROOMS := base policy codec engine http sim mock task binding
$(foreach l,$(ROOMS),$(eval $(l)_SRC := $(wildcard runtime/$(l)/*.c runtime/$(l)/*/*.c)))
$(foreach l,$(ROOMS),$(eval $(l)_OBJ := $$(patsubst runtime/%.c,$(BUILD)/obj/%.o,$$($(l)_SRC))))
http_OBJ += $(patsubst $(LLHTTP_DIR)/llhttp/%.c,$(BUILD)/obj/llhttp/%.o,$(LLHTTP_SRC))
host_OBJ := $(patsubst runtime/%.c,$(BUILD)/obj/%.o,$(wildcard runtime/host/*.c))
# What libmoonpool is; the simulator, the mock and the server are for the programs with Lua in them.
ENGINE_OBJ := $(base_OBJ) $(policy_OBJ) $(codec_OBJ) $(engine_OBJ)
SCRIPT_OBJ := $(task_OBJ) $(binding_OBJ) $(http_OBJ) $(sim_OBJ) $(mock_OBJ)

LUA_FILES  := $(shell find lua/moonpool -name '*.lua' | LC_ALL=C sort)
EMBED_OBJ  := $(BUILD)/obj/embedded.o

.PHONY: all opm run test check lint fmt asan tsan bench bench-check install clean unit libraries FORCE
.SECONDARY:
SHELLS := bash zsh fish
# The header for LuaJIT, which has no preprocessor.
CDEF := $(BUILD)/lua/resty/moonpool/cdef.lua
all: $(BUILD)/moonpool $(BUILD)/libmoonpool.so $(BUILD)/libmoonpool.a $(BUILD)/moonpool.so \
	$(BUILD)/moonpool.pc $(CDEF) $(SHELLS:%=$(BUILD)/completion.%)

$(BUILD)/obj/task/%.o: CFLAGS_EXTRA := $(LUA_CFLAGS)
$(BUILD)/obj/binding/%.o: CFLAGS_EXTRA := $(LUA_CFLAGS) $(LLHTTP_CFLAGS)
$(BUILD)/obj/host/%.o: CFLAGS_EXTRA := $(LUA_CFLAGS) $(LLHTTP_CFLAGS)
$(BUILD)/obj/http/%.o: CFLAGS_EXTRA := $(LLHTTP_CFLAGS)

libraries:
	@test -e "$(LUA_STATIC)" && $(PKG_CONFIG) --exists libcurl libuv libcjson libcrypto zlib libzstd || \
		{ echo "make: libraries are missing; ./scripts/setup installs them" >&2; exit 1; }

# Under both names of the object: scripts/ build by absolute paths, people by relative ones, and a header
# that only one of them knows of leaves stale objects to the other.
DEPS_FILE = -MMD -MP -MT $(patsubst $(CURDIR)/%,%,$(abspath $@)) -MT $(abspath $@)

$(BUILD)/obj/%.o: runtime/%.c | libraries
	@mkdir -p $(@D)
	$(CC) $(CFLAGS_ALL) $(CFLAGS_EXTRA) $(DEPS_FILE) -c -o $@ $<

$(BUILD)/obj/llhttp/%.o: $(LLHTTP_DIR)/llhttp/%.c
	@mkdir -p $(@D)
	$(CC) $(CFLAGS_ALL) $(LLHTTP_CFLAGS) -w -c -o $@ $<

# One archive a room, so that a test of a room links nothing above it.
$(foreach l,$(ROOMS),$(eval $(BUILD)/$(l).a: $($(l)_OBJ)))
$(ROOMS:%=$(BUILD)/%.a) $(BUILD)/libmoonpool.a:
	@mkdir -p $(@D)
	@rm -f $@
	$(AR) rcs $@ $^
$(BUILD)/libmoonpool.a: $(ENGINE_OBJ)

# The Lua library as bytes inside the binary: an assembler file of .incbin lines and one C table.
# The folders are named so that a removed file counts as a change.
$(BUILD)/embedded.c: $(LUA_FILES) $(shell find lua/moonpool -type d) $(ARGPARSE_LUA) \
		scripts/embed-lua NOTICE
	@mkdir -p $(@D)
	./scripts/embed-lua "$(ARGPARSE_LUA)" $(LUA_FILES) > $@.tmp && mv $@.tmp $@

$(EMBED_OBJ): $(BUILD)/embedded.c
	@mkdir -p $(@D)
	$(CC) $(CFLAGS_ALL) -c -o $@ $<

$(BUILD)/moonpool: $(host_OBJ) $(SCRIPT_OBJ) $(ENGINE_OBJ) $(EMBED_OBJ)
	$(CC) $(CFLAGS_ALL) -pie -o $@ $^ -Wl,-E -Wl,--whole-archive $(LUA_STATIC) -Wl,--no-whole-archive \
		$(EDIT_LIBS) $(LLHTTP_LIBS) $(DEPS_LIBS) $(CRYPTO_LIBS) -ldl $(HARDEN_L) $(LDFLAGS)

$(BUILD)/moonpool.so: $(SCRIPT_OBJ) $(ENGINE_OBJ) $(EMBED_OBJ)
	$(CC) $(CFLAGS_ALL) -shared -o $@ $^ $(LLHTTP_LIBS) $(DEPS_LIBS) $(CRYPTO_LIBS) $(HARDEN_L) \
		-Wl,-z,nodelete $(LDFLAGS)

$(CDEF): runtime/include/moonpool.h scripts/cdef
	@mkdir -p $(@D)
	./scripts/cdef $< > $@.tmp && mv $@.tmp $@

SOVERSION := 0
$(BUILD)/libmoonpool.so: $(ENGINE_OBJ)
	$(CC) $(CFLAGS_ALL) -shared -Wl,-soname,libmoonpool.so.$(SOVERSION) -o $@ $^ $(DEPS_LIBS) \
		$(HARDEN_L) -Wl,-z,defs $(LDFLAGS)
	ln -sf libmoonpool.so $(BUILD)/libmoonpool.so.$(SOVERSION)

# The binary knows its own options.
$(BUILD)/completion.%: $(BUILD)/moonpool
	$(BUILD)/moonpool help completion $* > $@.tmp && mv $@.tmp $@

# Always written anew: PREFIX may differ between `make` and `make install`.
$(BUILD)/moonpool.pc: FORCE
	@mkdir -p $(@D)
	@printf '%s\n' 'prefix=$(PREFIX)' 'libdir=$${prefix}/lib' 'includedir=$${prefix}/include' '' \
	  'Name: moonpool' 'Description: the embedding runtime, C engine' 'Version: $(VERSION)' \
	  'Requires.private: libcurl libuv libcjson zlib libzstd' 'Libs: -L$${libdir} -lmoonpool' \
	  'Libs.private: -lpthread -lm' 'Cflags: -I$${includedir}' > $@

# For programs that run scripts: the module is a library like any other, beside the system's Lua.
$(BUILD)/moonpool-lua.pc: FORCE
	@mkdir -p $(@D)
	@printf '%s\n' 'prefix=$(PREFIX)' 'moduledir=$(LUA_CDIR)' 'includedir=$${prefix}/include' '' \
	  'Name: moonpool-lua' 'Description: the embedding runtime with its Lua library' \
	  'Version: $(VERSION)' 'Requires: lua5.4' 'Libs: -L$${moduledir} -l:moonpool.so -Wl,-rpath,$${moduledir}' \
	  'Cflags: -I$${includedir}' > $@

# ---- tests ---------------------------------------------------------------------------------------

# tests/unit/<room>_<what>.c, linked with that room and what it may use.
UNIT_SRC := $(wildcard tests/unit/*_*.c)
UNIT_BIN := $(patsubst tests/unit/%.c,$(BUILD)/tests/%,$(UNIT_SRC))
LINK_base    := $(BUILD)/base.a
LINK_policy  := $(BUILD)/policy.a $(BUILD)/base.a
LINK_sim     := $(BUILD)/sim.a $(BUILD)/policy.a $(BUILD)/base.a
LINK_codec   := $(BUILD)/codec.a $(BUILD)/base.a
LINK_mock    := $(BUILD)/mock.a $(BUILD)/codec.a $(BUILD)/base.a
LINK_engine  := $(BUILD)/libmoonpool.a $(BUILD)/http.a
LINK_http    := $(BUILD)/http.a $(BUILD)/codec.a $(BUILD)/base.a
LINK_binding := $(BUILD)/binding.a $(BUILD)/task.a $(BUILD)/http.a $(BUILD)/sim.a $(BUILD)/mock.a \
	$(BUILD)/libmoonpool.a $(EMBED_OBJ)
$(BUILD)/tests/binding_%: LUA_TEST_CFLAGS = $(LUA_CFLAGS)
$(BUILD)/tests/binding_%: LUA_TEST_LIBS = $(LUA_STATIC) $(CRYPTO_LIBS) -ldl

# Its allocations can be made to fail.
$(BUILD)/tests/binding_torture: LUA_TEST_LIBS += -Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc \
	-Wl,--wrap=strdup,--wrap=strndup

define unit_rule
$(BUILD)/tests/$(1)_%: tests/unit/$(1)_%.c $(LINK_$(1)) $(wildcard tests/unit/*.h)
	@mkdir -p $$(@D)
	$(CC) $(CFLAGS_ALL) $(LLHTTP_CFLAGS) $$(LUA_TEST_CFLAGS) -Itests/unit -o $$@ $$< $(LINK_$(1)) \
		$(LLHTTP_LIBS) $$(LUA_TEST_LIBS) $(DEPS_LIBS) $(CMOCKA_LIBS) $(LDFLAGS)
endef
$(foreach l,base policy sim codec mock engine http binding,$(eval $(call unit_rule,$(l))))

unit: $(UNIT_BIN)

# Programs of tests/bench, one a C file; each may use the engine.
$(BUILD)/bench/%: tests/bench/%.c $(BUILD)/mock.a $(BUILD)/libmoonpool.a
	@mkdir -p $(@D)
	$(CC) $(CFLAGS_ALL) -o $@ $^ $(DEPS_LIBS) $(LDFLAGS)

test check:
	./scripts/test $(T)

run:
	./scripts/run

asan:
	./scripts/test --asan

tsan:
	./scripts/test --tsan

bench:
	./scripts/bench

bench-check:
	./scripts/bench check

lint:
	./scripts/lint

fmt:
	./scripts/lint --fix

clean:
	rm -rf $(BUILD)

LUA_CDIR ?= $(PREFIX)/lib/lua/5.4
install: all $(BUILD)/moonpool.pc $(BUILD)/moonpool-lua.pc
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/lib/pkgconfig \
		$(DESTDIR)$(PREFIX)/include $(DESTDIR)$(LUA_CDIR) $(DESTDIR)$(PREFIX)/share/man/man1 \
		$(DESTDIR)$(PREFIX)/share/bash-completion/completions \
		$(DESTDIR)$(PREFIX)/share/zsh/site-functions \
		$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d
	install -m 755 $(BUILD)/moonpool $(DESTDIR)$(PREFIX)/bin/moonpool
	install -m 644 $(BUILD)/libmoonpool.a $(DESTDIR)$(PREFIX)/lib/
	install -m 755 $(BUILD)/libmoonpool.so $(DESTDIR)$(PREFIX)/lib/libmoonpool.so.$(VERSION)
	ln -sf libmoonpool.so.$(VERSION) $(DESTDIR)$(PREFIX)/lib/libmoonpool.so.$(SOVERSION)
	ln -sf libmoonpool.so.$(SOVERSION) $(DESTDIR)$(PREFIX)/lib/libmoonpool.so
	install -m 755 $(BUILD)/moonpool.so $(DESTDIR)$(LUA_CDIR)/moonpool.so
	install -m 644 $(BUILD)/moonpool.pc $(BUILD)/moonpool-lua.pc $(DESTDIR)$(PREFIX)/lib/pkgconfig/
	install -m 644 runtime/include/*.h $(DESTDIR)$(PREFIX)/include/
	install -d $(DESTDIR)$(PREFIX)/share/lua/5.1/resty/moonpool
	install -m 644 lua/resty/moonpool.lua $(DESTDIR)$(PREFIX)/share/lua/5.1/resty/
	install -m 644 lua/resty/moonpool/*.lua $(CDEF) $(DESTDIR)$(PREFIX)/share/lua/5.1/resty/moonpool/
	install -m 644 scripts/moonpool.1 $(DESTDIR)$(PREFIX)/share/man/man1/
	install -m 644 $(BUILD)/completion.bash \
		$(DESTDIR)$(PREFIX)/share/bash-completion/completions/moonpool
	install -m 644 $(BUILD)/completion.zsh $(DESTDIR)$(PREFIX)/share/zsh/site-functions/_moonpool
	install -m 644 $(BUILD)/completion.fish \
		$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/moonpool.fish

# What OpenResty's package manager takes, for `opm build` in that directory.
opm: $(CDEF)
	install -d $(BUILD)/opm/lib/resty/moonpool
	install -m 644 lua/resty/dist.ini lua/resty/*.rockspec README.md $(BUILD)/opm/
	install -m 644 lua/resty/moonpool.lua $(BUILD)/opm/lib/resty/
	install -m 644 lua/resty/moonpool/*.lua $(CDEF) $(BUILD)/opm/lib/resty/moonpool/

-include $(shell find $(BUILD)/obj -name '*.d' 2>/dev/null)
