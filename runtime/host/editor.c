/*
 * editor.c - the prompt's line editor: libedit, fed with what the loop has read.
 *
 * libedit would read the terminal itself and let nothing else happen meanwhile. In its unbuffered
 * mode el_gets() returns after each key, and where keys come from can be replaced: here from a queue
 * that is filled when the terminal is readable. A key is taken only when all its bytes are there, so
 * libedit never finds the queue empty in the middle of one. Its own commands that read further keys
 * (incremental search, quoted insert) would, so they are not bound; the search is Lua's.
 *
 * What a key does that libedit does not know (completion, search, a paste, Ctrl+C) ends feed() with
 * an event, and Lua acts on it outside of libedit's frames, which no Lua error may cross.
 */
#include "host/editor.h"

#include "base/buf.h"
#include "binding/files/files.h"

#include <errno.h>
#include <fcntl.h>
#include <histedit.h>
#include <lauxlib.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <wchar.h>

#define EDITOR_META   "moonpool.editor"
#define MAX_PROMPT    256
#define MAX_QUEUE     ((size_t)16 << 20) /* typed or pasted and not yet looked at */
#define HISTORY_LINES 1000

struct editor {
    EditLine *el; /* NULL: closed */
    History *history;
    struct mp__buf queue;
    size_t at; /* of the queue: eaten */
    char prompt[MAX_PROMPT];
    const char *event; /* of the key just handled */
    int editing;
    int pasting;
    struct mp__fd_slot slot;
};

static struct editor *check_editor(lua_State *L)
{
    struct editor *e = luaL_checkudata(L, 1, EDITOR_META);
    if (e->el == NULL)
        luaL_argerror(L, 1, "the editor is closed");
    return e;
}

/* ---- keys ---- */

static size_t utf8_length(unsigned char c)
{
    return c < 0xC0 ? 1 : c < 0xE0 ? 2 : c < 0xF0 ? 3 : 4;
}

/* Bytes of the key at p, 0: not all of them are there. */
static size_t key_length(const char *p, size_t n)
{
    size_t i = 2;
    if (n == 0)
        return 0;
    if (*p != '\033')
        return utf8_length((unsigned char)*p) <= n ? utf8_length((unsigned char)*p) : 0;
    if (n < 2)
        return 0;
    if (p[1] == 'O')
        return n < 3 ? 0 : 3;
    if (p[1] != '[')
        return 1 +
               (utf8_length((unsigned char)p[1]) < n ? utf8_length((unsigned char)p[1]) : n - 1);
    while (i < n && (unsigned char)p[i] >= 0x20 && (unsigned char)p[i] < 0x40)
        i++;
    return i < n ? i + 1 : i > 32 ? i : 0;
}

/* libedit's source of characters. It asks only while the bytes of a whole key are there. */
static int next_char(EditLine *el, wchar_t *out)
{
    struct editor *e = NULL;
    mbstate_t state = {0};
    wchar_t c;
    el_get(el, EL_CLIENTDATA, &e);
    size_t left = e->queue.n - e->at;
    if (left == 0)
        return 0;
    size_t n = mbrtowc(&c, e->queue.p + e->at, left, &state);
    if (n == (size_t)-1 || n == (size_t)-2) {
        c = L'?';
        n = 1;
    }
    e->at += n > 0 ? n : 1;
    *out = c;
    return 1;
}

static unsigned char on_complete(EditLine *el, int key)
{
    struct editor *e = NULL;
    (void)key;
    el_get(el, EL_CLIENTDATA, &e);
    e->event = "complete";
    return CC_NORM;
}

static unsigned char on_search(EditLine *el, int key)
{
    struct editor *e = NULL;
    (void)key;
    el_get(el, EL_CLIENTDATA, &e);
    e->event = "search";
    return CC_NORM;
}

static char *prompt_of(EditLine *el)
{
    struct editor *e = NULL;
    el_get(el, EL_CLIENTDATA, &e);
    return e->prompt;
}

static void bind_keys(EditLine *el)
{
    el_set(el, EL_BIND, "-e", NULL);
    /* Wide: of narrow names libedit keeps copies that it never frees. */
    el_wset(el, EL_ADDFN, L"moonpool-complete", L"complete a name", on_complete);
    el_wset(el, EL_ADDFN, L"moonpool-search", L"search the history", on_search);
    el_set(el, EL_BIND, "\t", "moonpool-complete", NULL);
    el_set(el, EL_BIND, "^R", "moonpool-search", NULL);
    el_set(el, EL_BIND, "^W", "ed-delete-prev-word", NULL);
    el_set(el, EL_BIND, "\033[3~", "ed-delete-next-char", NULL);
    el_set(el, EL_BIND, "\033[H", "ed-move-to-beg", NULL);
    el_set(el, EL_BIND, "\033[F", "ed-move-to-end", NULL);
    el_set(el, EL_BIND, "\033[1~", "ed-move-to-beg", NULL);
    el_set(el, EL_BIND, "\033[4~", "ed-move-to-end", NULL);
    el_set(el, EL_BIND, "\033[1;5C", "em-next-word", NULL);
    el_set(el, EL_BIND, "\033[1;5D", "ed-prev-word", NULL);
    /* These read further keys and would find none. */
    static const char *const reading[] = {"^V", "^S", "^Q", "\033x", "\033X", "^X"};
    for (size_t i = 0; i < sizeof(reading) / sizeof(*reading); i++)
        el_set(el, EL_BIND, reading[i], "ed-unassigned", NULL);
}

/* ---- opening and closing ---- */

static void close_editor(struct editor *e)
{
    mp__fd_unwatch(&e->slot);
    if (e->el != NULL) {
        if (e->editing)
            el_set(e->el, EL_UNBUFFERED, 0);
        el_end(e->el);
    }
    if (e->history != NULL)
        history_end(e->history);
    mp__buf_free(&e->queue);
    e->el = NULL;
    e->history = NULL;
}

static int l_close(lua_State *L)
{
    close_editor(luaL_checkudata(L, 1, EDITOR_META));
    return 0;
}

/* new() -> an editor of the terminal on standard input and output */
static int l_new(lua_State *L)
{
    HistEvent event;
    struct editor *e = lua_newuserdatauv(L, sizeof(*e), 0);
    memset(e, 0, sizeof(*e));
    mp__buf_init(&e->queue, MAX_QUEUE);
    luaL_setmetatable(L, EDITOR_META);
    /* Only characters: numbers keep their point. */
    setlocale(LC_CTYPE, "");
    if (MB_CUR_MAX == 1)
        setlocale(LC_CTYPE, "C.UTF-8");
    e->el = el_init("moonpool", stdin, stdout, stderr);
    e->history = history_init();
    if (e->el == NULL || e->history == NULL)
        return luaL_error(L, "the line editor cannot be set up on this terminal");
    history(e->history, &event, H_SETSIZE, HISTORY_LINES);
    history(e->history, &event, H_SETUNIQUE, 1);
    el_set(e->el, EL_CLIENTDATA, e);
    el_set(e->el, EL_EDITOR, "emacs");
    el_set(e->el, EL_SIGNAL, 0);
    el_set(e->el, EL_PROMPT, prompt_of);
    el_set(e->el, EL_HIST, history, e->history);
    el_wset(e->el, EL_GETCFN, next_char);
    bind_keys(e->el);
    /* While a line is edited Ctrl+C is a key; while one runs it is a signal. */
    el_set(e->el, EL_SETTY, "-d", "-isig", NULL);
    return 1;
}

/* e:start(prompt): from now on keys edit a line */
static int l_start(lua_State *L)
{
    struct editor *e = check_editor(L);
    snprintf(e->prompt, sizeof(e->prompt), "%s", luaL_checkstring(L, 2));
    if (e->editing)
        el_set(e->el, EL_UNBUFFERED, 0);
    el_resize(e->el);
    fputs("\033[?2004h", stdout); /* pastes are marked */
    fflush(stdout);
    el_set(e->el, EL_UNBUFFERED, 1); /* draws the prompt */
    e->editing = 1;
    return 0;
}

/* e:stop(): the terminal as it was; keys wait in it */
static int l_stop(lua_State *L)
{
    struct editor *e = check_editor(L);
    if (!e->editing)
        return 0;
    e->editing = 0;
    fputs("\033[?2004l", stdout);
    fflush(stdout);
    el_set(e->el, EL_UNBUFFERED, 0);
    return 0;
}

/* ---- reading ---- */

static int read_k(lua_State *L, int status, lua_KContext ctx)
{
    struct editor *e = luaL_checkudata(L, 1, EDITOR_META);
    char bytes[4096];
    ssize_t n;
    (void)status;
    if (e->el == NULL)
        return 0;
    if (!mp__fd_ready(STDIN_FILENO, MP__FD_READ))
        return mp__fd_wait(L, &e->slot, STDIN_FILENO, MP__FD_READ, ctx, read_k);
    do
        n = read(STDIN_FILENO, bytes, sizeof(bytes));
    while (n < 0 && errno == EINTR);
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
        return mp__fd_wait(L, &e->slot, STDIN_FILENO, MP__FD_READ, ctx, read_k);
    if (n <= 0)
        return 0;
    lua_pushlstring(L, bytes, (size_t)n);
    return 1;
}

/* e:read() -> bytes from the terminal, waiting for some; nil: it has gone */
static int l_read(lua_State *L)
{
    check_editor(L);
    lua_settop(L, 1);
    return read_k(L, LUA_OK, 0);
}

/* ---- feeding ---- */

static const char paste_begin[] = "\033[200~";
static const char paste_end[] = "\033[201~";

static int starts(const struct editor *e, const char *with)
{
    size_t n = strlen(with);
    return e->queue.n - e->at >= n && memcmp(e->queue.p + e->at, with, n) == 0;
}

/* The text of a paste up to its end mark: "paste", text; 0 while it goes on. */
static int push_paste(lua_State *L, struct editor *e)
{
    const char *p = e->queue.p + e->at;
    const char *end = memmem(p, e->queue.n - e->at, paste_end, sizeof(paste_end) - 1);
    if (end == NULL)
        return 0;
    lua_pushliteral(L, "paste");
    lua_pushlstring(L, p, (size_t)(end - p));
    e->at += (size_t)(end - p) + sizeof(paste_end) - 1;
    e->pasting = 0;
    return 2;
}

static int is_empty(struct editor *e)
{
    const LineInfo *line = el_line(e->el);
    return line->lastchar == line->buffer;
}

/* One key: the number of values pushed for its event, 0: none. */
static int one_key(lua_State *L, struct editor *e)
{
    char c = e->queue.p[e->at];
    int n = 0;
    if (c == 3 || (c == 4 && is_empty(e))) {
        e->at++;
        lua_pushstring(L, c == 3 ? "interrupt" : "eof");
        return 1;
    }
    e->event = NULL;
    const char *text = el_gets(e->el, &n);
    if (e->event != NULL) {
        lua_pushstring(L, e->event);
        return 1;
    }
    if (text == NULL || n <= 0 || (text[n - 1] != '\n' && text[n - 1] != '\r'))
        return 0;
    lua_pushliteral(L, "line");
    lua_pushlstring(L, text, (size_t)n - 1);
    return 2;
}

static void forget_eaten(struct editor *e)
{
    memmove(e->queue.p, e->queue.p + e->at, e->queue.n - e->at);
    e->queue.n -= e->at;
    e->at = 0;
}

/* e:feed(bytes or nil) -> event, text; nil when what was fed is used up. Events: line, paste (each with
 * its text), complete, search, interrupt, eof. */
static int l_feed(lua_State *L)
{
    struct editor *e = check_editor(L);
    size_t n = 0;
    const char *bytes = luaL_optlstring(L, 2, "", &n);
    if (mp__buf_add(&e->queue, bytes, n) != 0)
        return luaL_error(L, "too much was typed or pasted at once");
    while (e->at < e->queue.n) {
        int pushed;
        if (!e->pasting && starts(e, paste_begin)) {
            e->at += sizeof(paste_begin) - 1;
            e->pasting = 1;
        }
        if (!e->pasting && key_length(e->queue.p + e->at, e->queue.n - e->at) == 0)
            break;
        pushed = e->pasting ? push_paste(L, e) : one_key(L, e);
        if (pushed > 0) {
            forget_eaten(e);
            return pushed;
        }
        if (e->pasting)
            break;
    }
    if (e->at > 0)
        forget_eaten(e);
    return 0;
}

/* e:key(): takes the next whole key out of the queue as bytes, past libedit (for the search) */
static int l_key(lua_State *L)
{
    struct editor *e = check_editor(L);
    size_t n = 0;
    const char *bytes = luaL_optlstring(L, 2, "", &n);
    if (mp__buf_add(&e->queue, bytes, n) != 0)
        return luaL_error(L, "too much was typed or pasted at once");
    n = key_length(e->queue.p, e->queue.n);
    if (n == 0)
        return 0;
    lua_pushlstring(L, e->queue.p, n);
    e->at = n;
    forget_eaten(e);
    return 1;
}

/* ---- the line on the screen ---- */

static size_t columns(const wchar_t *s, size_t n)
{
    size_t sum = 0;
    for (size_t i = 0; i < n; i++) {
        int w = wcwidth(s[i]);
        sum += w > 0 ? (size_t)w : w < 0 ? 2 : 0; /* a control character shows as ^X */
    }
    return sum;
}

static size_t terminal_columns(void)
{
    struct winsize w;
    return ioctl(STDOUT_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_col > 0 ? w.ws_col : 80;
}

/* e:hide(): takes the prompt and the line off the screen; the cursor is where the prompt was */
static int l_hide(lua_State *L)
{
    struct editor *e = check_editor(L);
    if (!e->editing)
        return 0;
    const LineInfoW *line = el_wline(e->el);
    size_t before = columns(line->buffer, (size_t)(line->cursor - line->buffer));
    size_t up = (strlen(e->prompt) + before) / terminal_columns();
    if (up > 0)
        fprintf(stdout, "\033[%zuA", up);
    fputs("\r\033[J", stdout);
    fflush(stdout);
    return 0;
}

/* e:show(): draws them again, below whatever was written since */
static int l_show(lua_State *L)
{
    struct editor *e = check_editor(L);
    fflush(stdout);
    if (e->editing)
        el_set(e->el, EL_REFRESH);
    return 0;
}

/* e:line() -> text, bytes before the cursor */
static int l_line(lua_State *L)
{
    const LineInfo *line = el_line(check_editor(L)->el);
    lua_pushlstring(L, line->buffer, (size_t)(line->lastchar - line->buffer));
    lua_pushinteger(L, line->cursor - line->buffer);
    return 2;
}

/* e:insert(text): at the cursor */
static int l_insert(lua_State *L)
{
    struct editor *e = check_editor(L);
    if (el_insertstr(e->el, luaL_checkstring(L, 2)) != 0)
        return luaL_error(L, "the line is too long");
    return 0;
}

/* e:clear(): the line is empty */
static int l_clear(lua_State *L)
{
    struct editor *e = check_editor(L);
    const LineInfoW *line = el_wline(e->el);
    int n = (int)(line->lastchar - line->buffer);
    el_cursor(e->el, n);
    el_deletestr(e->el, n);
    return 0;
}

/* e:remember(line): into the history of the arrow keys */
static int l_remember(lua_State *L)
{
    HistEvent event;
    struct editor *e = check_editor(L);
    history(e->history, &event, H_ENTER, luaL_checkstring(L, 2));
    return 0;
}

/* private(path): makes the file if it is not there, for its owner alone; false when that fails */
static int l_private(lua_State *L)
{
    int fd = open(luaL_checkstring(L, 1), O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    lua_pushboolean(L, fd >= 0 && fchmod(fd, 0600) == 0);
    if (fd >= 0)
        close(fd);
    return 1;
}

int mp__open_editor(lua_State *L)
{
    static const luaL_Reg methods[] = {
        {"close", l_close}, {"start", l_start},   {"stop", l_stop},   {"read", l_read},
        {"feed", l_feed},   {"key", l_key},       {"hide", l_hide},   {"show", l_show},
        {"line", l_line},   {"insert", l_insert}, {"clear", l_clear}, {"remember", l_remember},
        {NULL, NULL},
    };
    static const luaL_Reg functions[] = {{"new", l_new}, {"private", l_private}, {NULL, NULL}};
    luaL_newmetatable(L, EDITOR_META);
    luaL_newlib(L, methods);
    lua_setfield(L, -2, "__index");
    lua_pushcfunction(L, l_close);
    lua_setfield(L, -2, "__gc");
    lua_pushcfunction(L, l_close);
    lua_setfield(L, -2, "__close");
    lua_pop(L, 1);
    luaL_newlib(L, functions);
    return 1;
}
