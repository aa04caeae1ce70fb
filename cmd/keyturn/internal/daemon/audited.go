package daemon

import (
	"io/fs"
	"os"
	"path/filepath"

	"github.com/keyturn/keyturn/internal/atomicfile"
)

// judgeAuditFolder warns where others could rename or remove the audit log. It is
// no fault: the root of a volume is often open to all, and what is missing
// of the log is found by its anchors.
func (d *daemon) judgeAuditFolder() {
	if d.ledger.Log() == nil {
		return
	}
	folder := filepath.Dir(d.options.Config.Audit.File)
	info, err := os.Stat(folder)
	if err != nil {
		return // the log was opened in it: it has been there
	}
	sticky := info.Mode()&fs.ModeSticky != 0 // others remove nothing there that is not theirs
	if err := atomicfile.CheckWriters(info); err != nil && !sticky {
		d.log.Warn("the audit log stands in a folder in which others could rename or remove it; give it one of its own", "folder", folder, "error", err)
	}
}
