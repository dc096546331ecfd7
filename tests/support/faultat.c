// SPDX-License-Identifier: GPL-3.0-or-later
//
// faultat: a fault at the Nth state-changing system call of a whole process tree. A shared library: the caller forks, the
// child calls faultat_trace_me and goes on with what is to be disturbed, and the parent calls faultat_follow.
//
// Every thread and every child of that child is traced with ptrace, and the system calls that change a file system are
// counted in the order in which they happen; a seccomp filter lets all others through, so that they cost nothing. At the
// Nth one
//
//   kill    everybody is killed before the call runs, and the status is 137 when the last one is gone;
//   errno   the call does not run and fails with an error number;
//   stick   this call and every later one fails with it.
//
// N is 0 where nothing is disturbed. Calls count where they change what is at or below one folder, but not below others;
// the folders have to be absolute paths without links. What programs do elsewhere (caches, a store) is then neither counted
// nor disturbed. The log has a line for each counted call: its number, its process, its name, and what it changes; of two
// files both are named, with a tab between them. With a folder for copies, each file that is made durable is copied there
// under the number of the call: that is what a disk would still have. A call that empties a file first, exchanges two names,
// or leaves a file that has the name already alone, has that behind its own name.
//
// Otherwise the status is that of the child: its exit status, or 128 and the number of the signal that ended it.

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include <linux/filter.h>
#include <linux/ptrace.h> // after sys/ptrace.h, which can't bear its macros
#include <linux/seccomp.h>

#ifndef __x86_64__
#error "faultat changes registers, and knows those of x86_64 only"
#endif

enum mode { KILL, ERRNO_ONCE, ERRNO_FROM };
enum kind { WRITE = 1, SYNC = 2, RENAME = 4, OTHER = 8, ALL = 15 };

// Where a call names the files that it changes.
enum place {
    FD0,        // the descriptor in argument 0
    FD2,        // the descriptor in argument 2
    PATH0,      // the path in argument 0
    PATH1,      // the path in argument 1
    PATHS01,    // the paths in arguments 0 and 1
    AT0,        // the folder in argument 0, the path in argument 1
    AT1,        // the folder in argument 1, the path in argument 2
    AT0AT2,     // two pairs of folder and path
    NOWHERE,    // it names none: it counts wherever it happens
};

struct call {
    long number;
    const char *name;
    int kinds;
    enum place place;
};

static const struct call calls[] = {
    {SYS_write, "write", WRITE, FD0},
    {SYS_pwrite64, "pwrite64", WRITE, FD0},
    {SYS_writev, "writev", WRITE, FD0},
    {SYS_pwritev, "pwritev", WRITE, FD0},
    {SYS_pwritev2, "pwritev2", WRITE, FD0},
    {SYS_sendfile, "sendfile", WRITE, FD0},
    {SYS_copy_file_range, "copy_file_range", WRITE, FD2},
    {SYS_fallocate, "fallocate", WRITE, FD0},
    {SYS_ftruncate, "ftruncate", WRITE, FD0},
    {SYS_truncate, "truncate", WRITE, PATH0},
    {SYS_open, "open", WRITE, PATH0},
    {SYS_creat, "creat", WRITE, PATH0},
    {SYS_openat, "openat", WRITE, AT0},
    {SYS_openat2, "openat2", WRITE, AT0},
    {SYS_mkdir, "mkdir", WRITE, PATH0},
    {SYS_mkdirat, "mkdirat", WRITE, AT0},
    {SYS_mknod, "mknod", WRITE, PATH0},
    {SYS_mknodat, "mknodat", WRITE, AT0},
    {SYS_symlink, "symlink", WRITE, PATH1},
    {SYS_symlinkat, "symlinkat", WRITE, AT1},
    {SYS_link, "link", WRITE | RENAME, PATHS01},
    {SYS_linkat, "linkat", WRITE | RENAME, AT0AT2},
    {SYS_rename, "rename", WRITE | RENAME, PATHS01},
    {SYS_renameat, "renameat", WRITE | RENAME, AT0AT2},
    {SYS_renameat2, "renameat2", WRITE | RENAME, AT0AT2},
    {SYS_fsync, "fsync", SYNC, FD0},
    {SYS_fdatasync, "fdatasync", SYNC, FD0},
    {SYS_sync_file_range, "sync_file_range", SYNC, FD0},
    {SYS_syncfs, "syncfs", SYNC, FD0},
    {SYS_sync, "sync", SYNC, NOWHERE},
    {SYS_unlink, "unlink", OTHER, PATH0},
    {SYS_unlinkat, "unlinkat", OTHER, AT0},
    {SYS_rmdir, "rmdir", OTHER, PATH0},
    {SYS_chmod, "chmod", OTHER, PATH0},
    {SYS_fchmod, "fchmod", OTHER, FD0},
    {SYS_fchmodat, "fchmodat", OTHER, AT0},
};

struct faultat_order {
    long at;
    int mode;
    int error_number;
    int kinds;
    const char *below;
    const char *except; // folders, with colons between them
    const char *log;
    const char *copies;
};

static struct faultat_order order;
static long count;
static FILE *log_file;
static char changed[2][2 * PATH_MAX + 16]; // what the call under way was found to change
static int changed_count;

// -- looking into a tracee --------------------------------------------------------------------------------------------

static bool link_target(char *target, const char *format, pid_t process, int descriptor) {
    char name[64];
    snprintf(name, sizeof name, format, process, descriptor);
    ssize_t length = readlink(name, target, PATH_MAX - 1);
    if (length <= 0) return false;
    target[length] = 0;
    return true;
}

static bool read_path(pid_t process, unsigned long address, char *path) {
    for (size_t at = 0; at < PATH_MAX; at += sizeof(long)) {
        errno = 0;
        long word = ptrace(PTRACE_PEEKDATA, process, address + at, 0);
        if (errno) return false;
        memcpy(path + at, &word, sizeof word);
        if (memchr(&word, 0, sizeof word)) return true;
    }
    return false;
}

static bool at_or_below(const char *path, const char *folder, size_t length) {
    return !strncmp(path, folder, length) && (path[length] == 0 || path[length] == '/');
}

static bool below_prefix(const char *path) {
    if (!at_or_below(path, order.below, strlen(order.below))) return false;
    for (const char *next = order.except; *next;) {
        size_t length = strcspn(next, ":");
        if (length && at_or_below(path, next, length)) return false;
        next += length + (next[length] == ':');
    }
    snprintf(changed[changed_count++], sizeof changed[0], "%s", path);
    return true;
}

static bool path_wanted(pid_t process, int folder, unsigned long address) {
    char path[PATH_MAX + sizeof(long)], start[PATH_MAX], whole[2 * PATH_MAX + 8];
    if (!read_path(process, address, path)) return false;
    if (path[0] == '/') return below_prefix(path);
    bool known = folder == AT_FDCWD ? link_target(start, "/proc/%d/cwd", process, 0)
                                    : link_target(start, "/proc/%d/fd/%d", process, folder);
    if (!known) return false;
    const char *rest = path;
    while (!strncmp(rest, "./", 2)) rest += 2;
    snprintf(whole, sizeof whole, "%s/%s", start, rest);
    return below_prefix(whole);
}

static bool descriptor_wanted(pid_t process, int descriptor) {
    char target[PATH_MAX];
    return link_target(target, "/proc/%d/fd/%d", process, descriptor) && target[0] == '/' && below_prefix(target);
}

static bool opens_only(pid_t process, long number, const unsigned long long *args) {
    if (number != SYS_openat2) return false; // of the others the filter looks at the flags
    unsigned long flags = ptrace(PTRACE_PEEKDATA, process, args[2], 0); // the first member of struct open_how
    return !(flags & (O_CREAT | O_TRUNC));
}

static bool place_wanted(pid_t process, enum place place, const unsigned long long *args) {
    bool first, second;
    changed_count = 0;
    switch (place) {
    case FD0: return descriptor_wanted(process, (int)args[0]);
    case FD2: return descriptor_wanted(process, (int)args[2]);
    case PATH0: return path_wanted(process, AT_FDCWD, args[0]);
    case PATH1: return path_wanted(process, AT_FDCWD, args[1]);
    case PATHS01:
        first = path_wanted(process, AT_FDCWD, args[0]);
        second = path_wanted(process, AT_FDCWD, args[1]);
        return first || second;
    case AT0: return path_wanted(process, (int)args[0], args[1]);
    case AT1: return path_wanted(process, (int)args[1], args[2]);
    case AT0AT2:
        first = path_wanted(process, (int)args[0], args[1]);
        second = path_wanted(process, (int)args[2], args[3]);
        return first || second;
    case NOWHERE: return true;
    }
    return false;
}

static const struct call *counted(pid_t process, const struct ptrace_syscall_info *info) {
    for (size_t at = 0; at < sizeof calls / sizeof *calls; at++) {
        const struct call *call = &calls[at];
        if (call->number != (long)info->seccomp.nr) continue;
        if (!(call->kinds & order.kinds) || opens_only(process, call->number, info->seccomp.args)) return NULL;
        return place_wanted(process, call->place, info->seccomp.args) ? call : NULL;
    }
    return NULL;
}

static void copy_synced(pid_t process, const struct call *call, const unsigned long long *args) {
    char name[PATH_MAX];
    struct stat facts;
    if (!*order.copies || !(call->kinds & SYNC) || call->place != FD0) return;
    snprintf(name, sizeof name, "/proc/%d/fd/%d", process, (int)args[0]);
    int from = open(name, O_RDONLY | O_CLOEXEC);
    if (from < 0) return;
    if (!fstat(from, &facts) && S_ISREG(facts.st_mode)) {
        snprintf(name, sizeof name, "%s/%ld", order.copies, count);
        int to = open(name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        while (to >= 0 && sendfile(to, from, NULL, 1 << 20) > 0) {}
        if (to >= 0) close(to);
    }
    close(from);
}

// -- the tracees ------------------------------------------------------------------------------------------------------

static pid_t *tracees = NULL;
static size_t tracee_count = 0;

static void remember(pid_t process) {
    for (size_t at = 0; at < tracee_count; at++)
        if (tracees[at] == process) return;
    tracees = realloc(tracees, (tracee_count + 1) * sizeof *tracees);
    if (!tracees) abort();
    tracees[tracee_count++] = process;
}

static void forget(pid_t process) {
    for (size_t at = 0; at < tracee_count; at++)
        if (tracees[at] == process) tracees[at] = tracees[--tracee_count];
}

// Whoever waits for us at the entry of a call never makes it, and whoever runs is killed in the middle: a real SIGKILL.
static void kill_everybody(void) {
    int status;
    for (size_t at = 0; at < tracee_count; at++) kill(tracees[at], SIGKILL);
    for (pid_t process; (process = waitpid(-1, &status, __WALL)) > 0 || errno == EINTR;)
        if (process > 0 && WIFSTOPPED(status)) kill(process, SIGKILL);
}

// At the stop of the filter a call that has no number is skipped, and gives what stands in its result.
static void fail_call(pid_t process) {
    struct user_regs_struct registers;
    ptrace(PTRACE_GETREGS, process, 0, &registers);
    registers.orig_rax = -1;
    registers.rax = -order.error_number;
    ptrace(PTRACE_SETREGS, process, 0, &registers);
}

static const char *manner(const struct call *call, const unsigned long long *args) {
    if (call->number == SYS_open) return args[1] & O_TRUNC ? "+truncate" : "";
    if (call->number == SYS_creat) return "+truncate";
    if (call->number == SYS_openat) return args[2] & O_TRUNC ? "+truncate" : "";
    if (call->number != SYS_renameat2) return "";
    return args[4] & RENAME_EXCHANGE ? "+exchange" : args[4] & RENAME_NOREPLACE ? "+noreplace" : "";
}

// Whether everybody was killed.
static bool at_call(pid_t process) {
    struct ptrace_syscall_info info;
    memset(&info, 0, sizeof info);
    if (ptrace(PTRACE_GET_SYSCALL_INFO, process, sizeof info, &info) < 0) return false;
    if (info.op != PTRACE_SYSCALL_INFO_SECCOMP) return false;
    const struct call *call = counted(process, &info);
    if (!call) return false;
    count++;
    if (log_file) {
        const char *second = changed_count > 1 ? changed[1] : "";
        const char *how = manner(call, info.seccomp.args);
        fprintf(log_file, "%ld %d %s%s %s\t%s\n", count, process, call->name, how, changed_count ? changed[0] : "", second);
        copy_synced(process, call, info.seccomp.args);
    }
    if (!order.at || count < order.at || (count > order.at && order.mode != ERRNO_FROM)) return false;
    if (order.mode == KILL) {
        kill_everybody();
        return true;
    }
    fail_call(process);
    return false;
}

static int follow(pid_t first) {
    int status, result = 0;
    for (pid_t process; (process = waitpid(-1, &status, __WALL)) > 0 || errno == EINTR;) {
        if (process <= 0) continue;
        if (!WIFSTOPPED(status)) {
            forget(process);
            if (process == first) result = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
            continue;
        }
        remember(process);
        int number = WSTOPSIG(status);
        bool ours = number == SIGTRAP || number == SIGSTOP; // an event, or the first stop of a new tracee
        if (status >> 8 == (SIGTRAP | (PTRACE_EVENT_SECCOMP << 8)) && at_call(process)) return 128 + SIGKILL;
        ptrace(PTRACE_CONT, process, 0, ours ? 0 : number);
    }
    return result;
}

// -- what the caller calls --------------------------------------------------------------------------------------------

static struct sock_filter load(size_t offset) {
    return (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offset);
}

static struct sock_filter give(unsigned action) { return (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, action); }

// Only the calls of the table stop, and of those that open a file only what makes or empties one.
static bool install_filter(void) {
    enum { LENGTH = sizeof calls / sizeof *calls };
    static struct sock_filter code[6 * LENGTH + 2];
    unsigned short length = 0;
    code[length++] = load(offsetof(struct seccomp_data, nr));
    for (size_t at = 0; at < LENGTH; at++) {
        long number = calls[at].number;
        int flags = number == SYS_open ? 1 : number == SYS_openat ? 2 : -1;
        code[length++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, flags < 0 ? 1 : 4);
        if (flags >= 0) {
            code[length++] = load(offsetof(struct seccomp_data, args[flags]));
            code[length++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, O_CREAT | O_TRUNC, 1, 0);
            code[length++] = give(SECCOMP_RET_ALLOW);
        }
        code[length++] = give(SECCOMP_RET_TRACE);
    }
    code[length++] = give(SECCOMP_RET_ALLOW);
    struct sock_fprog program = {.len = length, .filter = code};
    return !prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) && !prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
}

// In the child: be traced from here on. 0, or an error number.
int faultat_trace_me(void) {
    if (ptrace(PTRACE_TRACEME, 0, 0, 0) < 0) return errno;
    raise(SIGSTOP);
    return install_filter() ? 0 : errno;
}

// In the parent, which has no other child: carry the order out on that child. Its status, or -1.
int faultat_follow(pid_t first, const struct faultat_order *given) {
    order = *given;
    count = 0;
    tracee_count = 0;
    if (waitpid(first, NULL, 0) < 0) return -1;
    remember(first);
    long options = PTRACE_O_EXITKILL | PTRACE_O_TRACESECCOMP | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK |
                   PTRACE_O_TRACECLONE | PTRACE_O_TRACEEXEC;
    if (ptrace(PTRACE_SETOPTIONS, first, 0, options) < 0) return -1;
    log_file = *order.log ? fopen(order.log, "we") : NULL;
    ptrace(PTRACE_CONT, first, 0, 0);
    int result = follow(first);
    if (log_file) fclose(log_file);
    return result;
}

