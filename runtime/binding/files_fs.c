/*
 * files_fs.c - the few file system calls that a job needs and Lua's own library lacks.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "binding/files.h"

static int answer(lua_State *L, int rc, const char *path)
{
    if (rc != 0)
        return mp__push_errno(L, path);
    lua_pushboolean(L, 1);
    return 1;
}

/* fs_mkdir(path) -> true; its own directory only, and only its owner may enter. */
static int l_mkdir(lua_State *L)
{
    const char *path = luaL_checkstring(L, 1);

    return answer(L, mkdir(path, 0700), path);
}

static int l_rename(lua_State *L)
{
    const char *from = luaL_checkstring(L, 1);

    return answer(L, rename(from, luaL_checkstring(L, 2)), from);
}

static int l_unlink(lua_State *L)
{
    const char *path = luaL_checkstring(L, 1);

    return answer(L, unlink(path), path);
}

static const char *type_name(mode_t mode)
{
    if (S_ISREG(mode))
        return "file";
    return S_ISDIR(mode) ? "directory" : "other";
}

/* fs_stat(path) -> type ("file", "directory", "other"), bytes, modified (s since 1970). */
static int l_stat(lua_State *L)
{
    const char *path = luaL_checkstring(L, 1);
    struct stat st;

    if (stat(path, &st) != 0)
        return mp__push_errno(L, path);
    lua_pushstring(L, type_name(st.st_mode));
    lua_pushinteger(L, (lua_Integer)st.st_size);
    lua_pushinteger(L, (lua_Integer)st.st_mtime);
    return 3;
}

static int l_dir_gc(lua_State *L)
{
    DIR **dir = lua_touserdata(L, 1);

    if (*dir)
        closedir(*dir);
    *dir = NULL;
    return 0;
}

static void push_names(lua_State *L, DIR *dir)
{
    const struct dirent *entry;
    lua_Integer n = 0;

    lua_newtable(L);
    for (;;) {
        entry = readdir(dir);
        if (!entry)
            return;
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        lua_pushstring(L, entry->d_name);
        lua_rawseti(L, -2, ++n);
    }
}

/* fs_list(directory) -> names, in no order. */
static int l_list(lua_State *L)
{
    const char *path = luaL_checkstring(L, 1);
    DIR **dir = lua_newuserdatauv(L, sizeof(*dir), 0);

    *dir = NULL;
    if (luaL_newmetatable(L, "moonpool.dir")) {
        lua_pushcfunction(L, l_dir_gc);
        lua_setfield(L, -2, "__gc");
    }
    lua_setmetatable(L, -2);
    *dir = opendir(path);
    if (!*dir)
        return mp__push_errno(L, path);
    push_names(L, *dir);
    closedir(*dir);
    *dir = NULL;
    return 1;
}

/* fs_sync_dir(directory): renames in it survive a power cut. */
static int l_sync_dir(lua_State *L)
{
    const char *path = luaL_checkstring(L, 1);
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int rc, e;

    if (fd < 0)
        return mp__push_errno(L, path);
    rc = fsync(fd);
    e = errno;
    close(fd);
    errno = e;
    return answer(L, rc, path);
}

/* isatty(fd) -> boolean, and the terminal's columns when it is one. */
static int l_isatty(lua_State *L)
{
    int fd = (int)luaL_checkinteger(L, 1);
    struct winsize size = {0};

    lua_pushboolean(L, isatty(fd));
    if (!lua_toboolean(L, -1))
        return 1;
    if (ioctl(fd, TIOCGWINSZ, &size) != 0 || size.ws_col == 0)
        size.ws_col = 80;
    lua_pushinteger(L, size.ws_col);
    return 2;
}

void mp__open_fs(lua_State *L)
{
    static const luaL_Reg functions[] = {
        {"fs_mkdir", l_mkdir}, {"fs_rename", l_rename}, {"fs_unlink", l_unlink},
        {"fs_stat", l_stat},   {"fs_list", l_list},     {"fs_sync_dir", l_sync_dir},
        {"isatty", l_isatty},  {NULL, NULL},
    };

    luaL_setfuncs(L, functions, 0);
}
