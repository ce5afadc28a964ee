#include "base/fds.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdint.h>
#include <sys/resource.h>
#include <unistd.h>

void mp__fds_keep_standard(void)
{
    for (int fd = 0; fd <= 2; fd++)
        if (fcntl(fd, F_GETFD) == -1) {
            /* The lowest free number is this one: those below are open by now. */
            int got = open("/dev/null", fd == 0 ? O_WRONLY : O_RDONLY);
            if (got > 2)
                close(got);
        }
}

/* The directory itself is counted too; "." and ".." are not descriptors. */
static size_t in_use(void)
{
    /* Not opendir: the thread sanitizer does not see that one open its descriptor. */
    int fd = open("/proc/self/fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
    size_t n = 0;

    if (dir == NULL) {
        if (fd >= 0)
            close(fd);
        return 64; /* no /proc: a guess that leaves room */
    }
    while (readdir(dir) != NULL)
        n++;
    closedir(dir);
    return n > 3 ? n - 3 : 0;
}

size_t mp__fds_left(void)
{
    struct rlimit limit;
    size_t used;

    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY)
        return SIZE_MAX;
    used = in_use();
    return limit.rlim_cur > used ? (size_t)limit.rlim_cur - used : 0;
}
