/* editor.h - the prompt's line editor, as the Lua module "moonpool.editor". */
#ifndef MP_HOST_EDITOR_H
#define MP_HOST_EDITOR_H

#include <lua.h>

int mp__open_editor(lua_State *L);

#endif
