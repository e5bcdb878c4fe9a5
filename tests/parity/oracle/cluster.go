package main

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	clientscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/events"
	"k8s.io/klog/v2"
	kubeschedulerconfig "k8s.io/kube-scheduler/config/v1"
	fwk "k8s.io/kube-scheduler/framework"
	corev1defaults "k8s.io/kubernetes/pkg/apis/core/v1"
	"k8s.io/kubernetes/pkg/scheduler"
	"k8s.io/kubernetes/pkg/scheduler/apis/config"
	"k8s.io/kubernetes/pkg/scheduler/apis/config/scheme"
	internalcache "k8s.io/kubernetes/pkg/scheduler/backend/cache"
	"k8s.io/kubernetes/pkg/scheduler/framework"
	frameworkplugins "k8s.io/kubernetes/pkg/scheduler/framework/plugins"
	"k8s.io/kubernetes/pkg/scheduler/profile"
)

// cluster is a scheduler over a document's snapshot, with the default profile but for the document's
// arguments of plugins.
type cluster struct {
	scheduler *scheduler.Scheduler
	framework framework.Framework
	informers informers.SharedInformerFactory
	nodes     []fwk.NodeInfo // sorted by name
	profile   config.KubeSchedulerProfile
	// One instance of each plugin outside the framework, which does not hand out its own.
	plugins map[string]fwk.Plugin
}

func newCluster(ctx context.Context, doc *document) (*cluster, error) {
	objects, err := admit(doc)
	if err != nil {
		return nil, err
	}
	c := &cluster{plugins: map[string]fwk.Plugin{}}
	if c.profile, err = profileOf(doc); err != nil {
		return nil, err
	}
	// Not NewClientset: nobody asks here who manages which field, and working that out takes time.
	client := fake.NewSimpleClientset(objects...)
	c.informers = scheduler.NewInformerFactory(client, 0, nil)
	snapshot := internalcache.NewSnapshot(doc.Pods, doc.Nodes)
	broadcaster := events.NewBroadcaster(&events.EventSinkImpl{Interface: client.EventsV1()})
	context.AfterFunc(ctx, broadcaster.Shutdown)
	c.scheduler, err = scheduler.New(ctx, client, c.informers, nil, profile.NewRecorderFactory(broadcaster),
		scheduler.WithNodeInfoSnapshot(snapshot), scheduler.WithPercentageOfNodesToScore(new(int32(100))),
		scheduler.WithProfiles(c.profile))
	if err != nil {
		return nil, err
	}
	c.framework = c.scheduler.Profiles[v1.DefaultSchedulerName]
	// Before the informers start, since plugins register handlers and indexers.
	if err := c.addPlugins(ctx); err != nil {
		return nil, err
	}
	c.informers.Start(ctx.Done())
	c.informers.WaitForCacheSync(ctx.Done())
	if err := waitForHandlers(ctx, c.informers); err != nil {
		return nil, err
	}
	for _, n := range doc.Nominated {
		info, err := framework.NewPodInfo(n.Pod)
		if err != nil {
			return nil, err
		}
		c.framework.AddNominatedPod(klog.FromContext(ctx), info,
			&fwk.NominatingInfo{NominatingMode: fwk.ModeOverride, NominatedNodeName: n.Node})
	}
	nodes, err := snapshot.NodeInfos().List()
	if err != nil {
		return nil, err
	}
	c.nodes = slices.SortedFunc(slices.Values(nodes), func(a, b fwk.NodeInfo) int {
		return strings.Compare(a.Node().Name, b.Node().Name)
	})
	return c, nil
}

// profileOf is the default profile with the document's arguments, read as kube-scheduler reads a file.
func profileOf(doc *document) (config.KubeSchedulerProfile, error) {
	file, err := json.Marshal(map[string]any{
		"apiVersion": kubeschedulerconfig.SchemeGroupVersion.String(),
		"kind":       "KubeSchedulerConfiguration",
		"profiles":   []any{map[string]any{"pluginConfig": doc.PluginConfig}},
	})
	if err != nil {
		return config.KubeSchedulerProfile{}, err
	}
	read, _, err := scheme.Codecs.UniversalDecoder().Decode(file, nil, nil)
	if err != nil {
		return config.KubeSchedulerProfile{}, err
	}
	return read.(*config.KubeSchedulerConfiguration).Profiles[0], nil
}

func (c *cluster) addPlugins(ctx context.Context) error {
	args := map[string]runtime.Object{}
	for _, pluginConfig := range c.profile.PluginConfig {
		args[pluginConfig.Name] = pluginConfig.Args
	}
	var err error
	registry := frameworkplugins.NewInTreeRegistry()
	for _, enabled := range c.profile.Plugins.MultiPoint.Enabled {
		if enabled.Name == "DynamicResources" {
			continue // a second instance conflicts on its pod indexer; it still runs in the framework
		}
		if c.plugins[enabled.Name], err = registry[enabled.Name](ctx, args[enabled.Name], c.framework); err != nil {
			return fmt.Errorf("%s: %w", enabled.Name, err)
		}
	}
	return nil
}

// admit does what the API server would have done to a document (defaults, uids, namespaces) and
// returns all of its objects.
func admit(doc *document) ([]runtime.Object, error) {
	var objects []runtime.Object
	namespaces := sets.New[string]()
	for _, raw := range doc.Objects {
		object, _, err := clientscheme.Codecs.UniversalDeserializer().Decode(raw, nil, nil)
		if err != nil {
			return nil, err
		}
		if namespace, ok := object.(*v1.Namespace); ok {
			namespaces.Insert(namespace.Name)
		}
		objects = append(objects, object)
	}
	pods := append(slices.Clone(doc.Pods), doc.Pod)
	for _, n := range doc.Nominated {
		pods = append(pods, n.Pod)
	}
	for i, pod := range pods {
		if pod.Namespace == "" {
			pod.Namespace = metav1.NamespaceDefault
		}
		if pod.UID == "" {
			pod.UID = types.UID(fmt.Sprintf("uid-%d", i))
		}
		corev1defaults.SetObjectDefaults_Pod(pod)
		if !namespaces.Has(pod.Namespace) {
			namespaces.Insert(pod.Namespace)
			objects = append(objects, &v1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: pod.Namespace}})
		}
		objects = append(objects, pod)
	}
	for _, node := range doc.Nodes {
		corev1defaults.SetObjectDefaults_Node(node)
		objects = append(objects, node)
	}
	return objects, nil
}
