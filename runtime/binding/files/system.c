/*
 * system.c - the few system calls that the Lua half needs and Lua's own library lacks.
 *
 * Failures return nil, message, errno as in Lua's io library; wrong arguments raise.
 */
#include "base/clock.h"
#include "binding/binding.h"
#include "task/task.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define MAX_RANDOM 1024

static int answer(lua_State *L, int ok, const char *path)
{
    return luaL_fileresult(L, ok, path);
}

/* wall() -> seconds since 1970, with a fraction */
static int l_wall(lua_State *L)
{
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    lua_pushnumber(L, (double)ts.tv_sec + (double)ts.tv_nsec * 1e-9);
    return 1;
}

/* hrtime() -> monotonic nanoseconds, an integer */
static int l_hrtime(lua_State *L)
{
    lua_pushinteger(L, mp__now());
    return 1;
}

static int l_isatty(lua_State *L)
{
    lua_pushboolean(L, isatty((int)luaL_checkinteger(L, 1)));
    return 1;
}

static int l_getenv(lua_State *L)
{
    lua_pushstring(L, getenv(luaL_checkstring(L, 1)));
    return 1;
}

/* terminal_width(fd = 2) -> columns, or nil when it is no terminal */
static int l_terminal_width(lua_State *L)
{
    struct winsize size;
    int fd = (int)luaL_optinteger(L, 1, 2);
    if (ioctl(fd, TIOCGWINSZ, &size) != 0 || size.ws_col == 0)
        return 0;
    lua_pushinteger(L, size.ws_col);
    return 1;
}

/* mkdir(path, mode = 0755) */
static int l_mkdir(lua_State *L)
{
    const char *path = luaL_checkstring(L, 1);
    mode_t mode = (mode_t)luaL_optinteger(L, 2, 0755);
    return answer(L, mkdir(path, mode) == 0, path);
}

static int l_rmdir(lua_State *L)
{
    const char *path = luaL_checkstring(L, 1);
    return answer(L, rmdir(path) == 0, path);
}

/* rename(from, to): replaces `to` in one step */
static int l_rename(lua_State *L)
{
    const char *from = luaL_checkstring(L, 1);
    const char *to = luaL_checkstring(L, 2);
    return answer(L, rename(from, to) == 0, from);
}

static int sync_path(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    int status = fsync(fd);
    int err = errno;
    close(fd);
    errno = err;
    return status;
}

static int sync_file(lua_State *L)
{
    luaL_Stream *stream = luaL_checkudata(L, 1, LUA_FILEHANDLE);
    luaL_argcheck(L, stream->closef != NULL, 1, "the file is closed");
    return fflush(stream->f) == 0 ? fsync(fileno(stream->f)) : -1;
}

/* fsync(path or file): a path may be a directory's */
static int l_fsync(lua_State *L)
{
    if (lua_type(L, 1) == LUA_TSTRING) {
        const char *path = lua_tostring(L, 1);
        return answer(L, sync_path(path) == 0, path);
    }
    return answer(L, sync_file(L) == 0, NULL);
}

/* truncate(path, size) */
static int l_truncate(lua_State *L)
{
    const char *path = luaL_checkstring(L, 1);
    return answer(L, truncate(path, (off_t)luaL_checkinteger(L, 2)) == 0, path);
}

/* stat(path) -> {type=, size=, mtime=, mode=} */
static int l_stat(lua_State *L)
{
    struct stat st;
    const char *path = luaL_checkstring(L, 1);
    if (stat(path, &st) != 0)
        return answer(L, 0, path);
    const char *type = S_ISREG(st.st_mode) ? "file" : S_ISDIR(st.st_mode) ? "directory" : "other";
    lua_createtable(L, 0, 4);
    lua_pushstring(L, type);
    lua_setfield(L, -2, "type");
    lua_pushinteger(L, (lua_Integer)st.st_size);
    lua_setfield(L, -2, "size");
    lua_pushnumber(L, (double)st.st_mtim.tv_sec + (double)st.st_mtim.tv_nsec * 1e-9);
    lua_setfield(L, -2, "mtime");
    lua_pushinteger(L, st.st_mode & 07777);
    lua_setfield(L, -2, "mode");
    return 1;
}

static int l_close_dir(lua_State *L)
{
    DIR **dir = lua_touserdata(L, 1);
    if (*dir != NULL)
        closedir(*dir);
    *dir = NULL;
    return 0;
}

/* The directory stands in a userdata with a finalizer: filling the table may raise. */
static DIR **push_dir(lua_State *L)
{
    DIR **dir = lua_newuserdatauv(L, sizeof(*dir), 0);
    *dir = NULL;
    if (luaL_newmetatable(L, "moonpool.dir")) {
        lua_pushcfunction(L, l_close_dir);
        lua_setfield(L, -2, "__gc");
    }
    lua_setmetatable(L, -2);
    return dir;
}

/* listdir(path) -> list of names in no order, without . and .. */
static int l_listdir(lua_State *L)
{
    const char *path = luaL_checkstring(L, 1);
    DIR **dir = push_dir(L);
    *dir = opendir(path);
    if (*dir == NULL)
        return answer(L, 0, path);
    lua_newtable(L);
    lua_Integer n = 0;
    /* glibc's is safe for streams of one's own: cppcheck-suppress readdirCalled */
    for (struct dirent *entry = readdir(*dir); entry != NULL; entry = readdir(*dir)) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        lua_pushstring(L, entry->d_name);
        lua_rawseti(L, -2, ++n);
    }
    closedir(*dir);
    *dir = NULL;
    return 1;
}

/* random_hex(n) -> 2n hexadecimal digits from the system's generator */
static int l_random_hex(lua_State *L)
{
    unsigned char bytes[MAX_RANDOM];
    static const char digits[] = "0123456789abcdef";
    lua_Integer n = luaL_checkinteger(L, 1);
    luaL_argcheck(L, n >= 0 && n <= MAX_RANDOM, 1, "out of range");
    int err = n ? uv_random(NULL, NULL, bytes, (size_t)n, 0, NULL) : 0;
    if (err)
        return luaL_error(L, "no random bytes: %s", uv_strerror(err));
    luaL_Buffer buffer;
    luaL_buffinit(L, &buffer);
    for (lua_Integer i = 0; i < n; i++) {
        luaL_addchar(&buffer, digits[bytes[i] >> 4]);
        luaL_addchar(&buffer, digits[bytes[i] & 15]);
    }
    luaL_pushresult(&buffer);
    return 1;
}

/* max_rss() -> the most memory this process has had, in bytes */
static int l_max_rss(lua_State *L)
{
    uv_rusage_t usage;
    int err = uv_getrusage(&usage);
    lua_pushinteger(L, err ? 0 : (lua_Integer)usage.ru_maxrss * 1024);
    return 1;
}

/* rss() -> the memory it has now, in bytes */
static int l_rss(lua_State *L)
{
    size_t rss = 0;
    int err = uv_resident_set_memory(&rss);
    lua_pushinteger(L, err ? 0 : (lua_Integer)rss);
    return 1;
}

void mp__open_system(lua_State *L)
{
    static const luaL_Reg functions[] = {{"wall", l_wall},
                                         {"hrtime", l_hrtime},
                                         {"isatty", l_isatty},
                                         {"getenv", l_getenv},
                                         {"terminal_width", l_terminal_width},
                                         {"mkdir", l_mkdir},
                                         {"rmdir", l_rmdir},
                                         {"rename", l_rename},
                                         {"fsync", l_fsync},
                                         {"truncate", l_truncate},
                                         {"stat", l_stat},
                                         {"listdir", l_listdir},
                                         {"random_hex", l_random_hex},
                                         {"max_rss", l_max_rss},
                                         {"rss", l_rss},
                                         {NULL, NULL}};
    luaL_setfuncs(L, functions, 0);
}
