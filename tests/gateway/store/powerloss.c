/* Preloaded into a process, this writes down what the process does to the files of one folder (POWERLOSS_FOLDER), in the order in which
 * it does it, so that `powerloss.py` can tell what a power cut at any moment may have left on the disk. Synchronising is written down,
 * not done: the disk is not what is tested.
 *
 * A record: operation u8, length of name u8, 0 u16, length of data u32, offset u64 (little-endian), name, data.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define FILES 4096
enum { CREATE = 1, WRITE, TRUNCATE, SYNC, UNLINK, RENAME, LINK };

static pthread_mutex_t order = PTHREAD_MUTEX_INITIALIZER;
static const char *folder;
static int trace = -1;
static char *names[FILES];

__attribute__((constructor)) static void begin(void) {
    folder = getenv("POWERLOSS_FOLDER");
    const char *path = getenv("POWERLOSS_TRACE");
    if (folder && path) trace = syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

/* The name inside the folder, "" for the folder itself, NULL for what is elsewhere or is shared memory. */
static const char *inside(const char *path) {
    size_t length = folder ? strlen(folder) : 0;
    if (trace < 0 || !path || strncmp(path, folder, length)) return NULL;
    if (!path[length]) return "";
    if (path[length] != '/') return NULL;
    const char *name = path + length + 1;
    size_t end = strlen(name);
    return strchr(name, '/') || (end > 4 && !strcmp(name + end - 4, "-shm")) ? NULL : name;
}

static void record(uint8_t operation, const char *name, uint64_t offset, const void *data, uint32_t length) {
    struct __attribute__((packed)) { uint8_t operation, name; uint16_t zero; uint32_t data; uint64_t offset; } head =
        {operation, strlen(name), 0, length, offset};
    struct iovec parts[3] = {{&head, sizeof head}, {(void *)name, head.name}, {(void *)data, length}};
    if (syscall(SYS_writev, trace, parts, 3) != (long)(sizeof head + head.name + length)) abort();
}

static const char *known(int handle) { return handle >= 0 && handle < FILES ? names[handle] : NULL; }

static int opened(const char *path, int flags, mode_t mode) {
    const char *name = inside(path);
    pthread_mutex_lock(&order);
    int new = name && *name && (flags & O_CREAT) && syscall(SYS_faccessat, AT_FDCWD, path, F_OK);
    int handle = syscall(SYS_openat, AT_FDCWD, path, flags | O_LARGEFILE, mode);
    if (name && handle >= 0 && handle < FILES) {
        free(names[handle]);
        names[handle] = strdup(name);
        if (new) record(CREATE, name, 0, NULL, 0);
        if (flags & O_TRUNC) record(TRUNCATE, name, 0, NULL, 0);
    }
    pthread_mutex_unlock(&order);
    return handle;
}

#define MODE(flags) mode_t mode = 0; if (flags & (O_CREAT | O_TMPFILE)) { va_list more; va_start(more, flags); mode = va_arg(more, mode_t); va_end(more); }
int open(const char *path, int flags, ...) { MODE(flags) return opened(path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE(flags) return opened(path, flags, mode); }

int close(int handle) {
    pthread_mutex_lock(&order);
    if (known(handle)) { free(names[handle]); names[handle] = NULL; }
    pthread_mutex_unlock(&order);
    return syscall(SYS_close, handle);
}

static ssize_t written(int handle, const void *data, size_t length, off_t offset) {
    pthread_mutex_lock(&order);
    ssize_t done = syscall(SYS_pwrite64, handle, data, length, offset);
    if (done > 0 && known(handle)) record(WRITE, known(handle), offset, data, done);
    pthread_mutex_unlock(&order);
    return done;
}
ssize_t pwrite(int handle, const void *data, size_t length, off_t offset) { return written(handle, data, length, offset); }
ssize_t pwrite64(int handle, const void *data, size_t length, off_t offset) { return written(handle, data, length, offset); }

ssize_t write(int handle, const void *data, size_t length) {
    if (!known(handle)) return syscall(SYS_write, handle, data, length);
    pthread_mutex_lock(&order);
    off_t offset = syscall(SYS_lseek, handle, 0, SEEK_CUR);
    ssize_t done = syscall(SYS_write, handle, data, length);
    if (done > 0) record(WRITE, known(handle), offset, data, done);
    pthread_mutex_unlock(&order);
    return done;
}

static int truncated(int handle, off_t length) {
    pthread_mutex_lock(&order);
    int done = syscall(SYS_ftruncate, handle, length);
    if (!done && known(handle)) record(TRUNCATE, known(handle), length, NULL, 0);
    pthread_mutex_unlock(&order);
    return done;
}
int ftruncate(int handle, off_t length) { return truncated(handle, length); }
int ftruncate64(int handle, off_t length) { return truncated(handle, length); }

static int synced(int handle) {
    if (!known(handle)) return 0;
    pthread_mutex_lock(&order);
    record(SYNC, known(handle), 0, NULL, 0);
    pthread_mutex_unlock(&order);
    return 0;
}
int fsync(int handle) { return synced(handle); }
int fdatasync(int handle) { return synced(handle); }

/* No space is reserved ahead: a write says where it goes, a reservation says nothing. */
int fallocate(int handle, int mode, off_t offset, off_t length) { (void)handle; (void)mode; (void)offset; (void)length; return 0; }

int unlink(const char *path) {
    pthread_mutex_lock(&order);
    int done = syscall(SYS_unlinkat, AT_FDCWD, path, 0);
    if (!done && inside(path)) record(UNLINK, inside(path), 0, NULL, 0);
    pthread_mutex_unlock(&order);
    return done;
}

int rename(const char *old, const char *new) {
    pthread_mutex_lock(&order);
    int done = syscall(SYS_renameat2, AT_FDCWD, old, AT_FDCWD, new, 0);
    if (!done && inside(old) && inside(new)) record(RENAME, inside(old), 0, inside(new), strlen(inside(new)));
    pthread_mutex_unlock(&order);
    return done;
}

int linkat(int from, const char *old, int to, const char *new, int flags) {
    pthread_mutex_lock(&order);
    int done = syscall(SYS_linkat, from, old, to, new, flags);
    if (!done && inside(old) && inside(new)) record(LINK, inside(old), 0, inside(new), strlen(inside(new)));
    pthread_mutex_unlock(&order);
    return done;
}
int link(const char *old, const char *new) { return linkat(AT_FDCWD, old, AT_FDCWD, new, 0); }
