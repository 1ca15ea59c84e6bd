// cert-manager's controllers for issuers that sign by themselves. Its own command also asks others to sign, and so brings
// the clients of every cloud.
package main

import (
	"context"
	"flag"
	"os/signal"
	"syscall"

	"github.com/cert-manager/cert-manager/pkg/controller"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificaterequests/approver"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificaterequests/ca"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificaterequests/selfsigned"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificates/issuing"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificates/keymanager"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificates/readiness"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificates/requestmanager"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificates/revisionmanager"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificates/trigger"
	_ "github.com/cert-manager/cert-manager/pkg/controller/clusterissuers"
	_ "github.com/cert-manager/cert-manager/pkg/controller/issuers"
	_ "github.com/cert-manager/cert-manager/pkg/issuer/ca"
	_ "github.com/cert-manager/cert-manager/pkg/issuer/selfsigned"
	"github.com/cert-manager/cert-manager/pkg/logs"
	"golang.org/x/sync/errgroup"
	"k8s.io/klog/v2"
)

// As cert-manager's own command has them.
const (
	qps     = 20
	burst   = 50
	workers = 5
)

func main() {
	options := controller.ContextOptions{
		KubernetesAPIQPS:   qps,
		KubernetesAPIBurst: burst,
		CertificateOptions: controller.CertificateOptions{
			CopiedAnnotationPrefixes: []string{"*", "-kubectl.kubernetes.io/", "-fluxcd.io/", "-argocd.argoproj.io/"},
		},
	}
	flag.StringVar(&options.Kubeconfig, "kubeconfig", "", "how to reach the API server")
	flag.StringVar(&options.ClusterResourceNamespace, "cluster-resource-namespace", "kube-system",
		"where the Secrets of ClusterIssuers are")
	klog.InitFlags(nil)
	flag.Parse()
	logs.InitLogs()
	defer logs.FlushLogs()

	stopped, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(logs.NewContext(stopped, logs.Log, "controller"), options); err != nil {
		klog.ErrorS(err, "cert-manager failed")
		klog.FlushAndExit(klog.ExitFlushTimeout, 1)
	}
}

// run runs every controller that is imported, until ctx is done or one fails.
func run(ctx context.Context, options controller.ContextOptions) error {
	group, ctx := errgroup.WithContext(ctx)
	contexts, err := controller.NewContextFactory(ctx, options)
	if err != nil {
		return err
	}
	shared, err := contexts.Build()
	if err != nil {
		return err
	}
	var made []controller.Interface
	for name, construct := range controller.Known() {
		one, err := construct(contexts)
		if err != nil {
			return err
		}
		klog.InfoS("starting", "controller", name)
		made = append(made, one)
	}
	for _, one := range made {
		group.Go(func() error { return one.Run(workers, ctx) })
	}
	// After the controllers: an informer is known once one of them has asked for it.
	shared.SharedInformerFactory.Start(ctx.Done())
	shared.KubeSharedInformerFactory.Start(ctx.Done())
	return group.Wait()
}
