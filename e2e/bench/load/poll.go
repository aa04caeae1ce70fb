package load

import (
	"fmt"
	"syscall"
	"time"
	"unsafe"
)

// sysEpollPwait2 waits with a resolution of nanoseconds; the number is the
// same on all of Linux's younger platforms.
const sysEpollPwait2 = 441

// poller tells which connections have something to read.
type poller struct {
	fd     int
	events []syscall.EpollEvent
	ready  []int32
}

func newPoller(size int) (poller, error) {
	fd, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return poller{}, fmt.Errorf("epoll: %w", err)
	}
	return poller{fd: fd, events: make([]syscall.EpollEvent, size), ready: make([]int32, 0, size)}, nil
}

func (p *poller) close() { _ = syscall.Close(p.fd) }

// add watches a descriptor; wait names it by its index.
func (p *poller) add(fd, index int) error {
	return syscall.EpollCtl(p.fd, syscall.EPOLL_CTL_ADD, fd, &syscall.EpollEvent{Events: syscall.EPOLLIN, Fd: int32(index)})
}

// wait blocks until there is something to read, or the limit has passed. What
// it returns is good until the next call.
func (p *poller) wait(limit time.Duration) ([]int32, error) {
	ts := syscall.NsecToTimespec(int64(limit))
	n, _, errno := syscall.Syscall6(sysEpollPwait2, uintptr(p.fd), uintptr(unsafe.Pointer(&p.events[0])), uintptr(len(p.events)),
		uintptr(unsafe.Pointer(&ts)), 0, 0)
	p.ready = p.ready[:0]
	if errno == syscall.EINTR {
		return p.ready, nil
	}
	if errno != 0 {
		return nil, fmt.Errorf("epoll_pwait2: %w", errno)
	}
	for _, e := range p.events[:n] {
		p.ready = append(p.ready, e.Fd)
	}
	return p.ready, nil
}

// read and write do not block, so the Go scheduler need not hear of them.
func read(fd int, p []byte) (int, syscall.Errno) {
	n, _, errno := syscall.RawSyscall(syscall.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)))
	return int(n), errno
}

func write(fd int, p []byte) (int, syscall.Errno) {
	n, _, errno := syscall.RawSyscall(syscall.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)))
	return int(n), errno
}

// bePatient puts this thread into the scheduling class SCHED_BATCH.
func bePatient() error {
	const schedBatch = 3
	var priority int32 // the class knows none but 0
	_, _, errno := syscall.RawSyscall(syscall.SYS_SCHED_SETSCHEDULER, 0, schedBatch, uintptr(unsafe.Pointer(&priority)))
	if errno != 0 {
		return fmt.Errorf("SCHED_BATCH: %w", errno)
	}
	return nil
}

// usage is processor time, user and system, since the processes began.
type usage struct{ own, server time.Duration }

func used(pid int) (usage, error) {
	var u usage
	var err error
	if u.own, err = ProcessCPU(syscall.Getpid()); err == nil && pid != 0 {
		u.server, err = ProcessCPU(pid)
	}
	return u, err
}

// ProcessCPU is the processor time of a process with all its threads, from
// its clock (clock_getcpuclockid(3)): exact where /proc counts in 10 ms.
func ProcessCPU(pid int) (time.Duration, error) {
	const schedClock = 2
	var ts syscall.Timespec
	if _, _, errno := syscall.RawSyscall(syscall.SYS_CLOCK_GETTIME, uintptr(^pid<<3|schedClock), uintptr(unsafe.Pointer(&ts)), 0); errno != 0 {
		return 0, fmt.Errorf("processor time of process %d: %w", pid, errno)
	}
	return time.Duration(ts.Nano()), nil
}
