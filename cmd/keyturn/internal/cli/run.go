package cli

import (
	"context"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/keyturn/keyturn/configs"
	"github.com/spf13/cobra"
)

func runCommand(cfg *Config) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "run --config FILE",
		Short: "Run the daemon",
		Long: `Run the daemon until SIGTERM or SIGINT. When the file changes, profiles,
the log level and certificates are applied, unless watch: false says otherwise;
SIGHUP does that, too, and reopens the audit log. It logs to standard error.`,
		Args: cobra.NoArgs,
	}
	configs.Flags(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		o := configs.Options{Flags: cmd.Flags(), Environ: cfg.Environ, Judge: cfg.Judge}
		loaded, warnings, err := configs.Load(o)
		if err != nil {
			return err
		}
		log, level := newLogger(cmd.ErrOrStderr(), loaded.Log)
		warn(log, warnings)
		ctx, stop := untilSignal(cmd.Context())
		defer stop()
		return cfg.Run(ctx, RunOptions{
			Config: loaded, Logger: log, Level: level, Version: cfg.Version,
			Reload: func() (*configs.Config, error) {
				again, warnings, err := configs.Load(o)
				warn(log, warnings)
				return again, err
			},
		})
	}
	return cmd
}

// untilSignal ends with SIGTERM or SIGINT. Only daemons catch these: a client
// that waits for an answer, or for its user's, is ended by them. They stay caught
// for good: who sends another one while the process ends does not turn a clean
// end into a death by signal. The returned func ends the wait.
func untilSignal(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	caught := make(chan os.Signal, 1)
	signal.Notify(caught, syscall.SIGTERM, syscall.SIGINT)
	waited := make(chan struct{})
	go func() {
		defer close(waited)
		select {
		case <-caught:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, func() {
		cancel()
		<-waited
	}
}

func warn(log *slog.Logger, warnings []configs.Warning) {
	for _, w := range warnings {
		log.Warn("configuration", "warning", string(w))
	}
}

// newLogger logs as the configuration says. The level can be changed later.
func newLogger(w io.Writer, c configs.Log) (*slog.Logger, *slog.LevelVar) {
	level := new(slog.LevelVar)
	level.Set(c.SlogLevel())
	o := &slog.HandlerOptions{Level: level}
	if c.Format == "text" {
		return slog.New(slog.NewTextHandler(w, o)), level
	}
	return slog.New(slog.NewJSONHandler(w, o)), level
}
