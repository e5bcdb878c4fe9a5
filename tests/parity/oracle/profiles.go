package main

import (
	"context"
	"encoding/json"

	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/events"
	"k8s.io/kubernetes/pkg/scheduler"
	"k8s.io/kubernetes/pkg/scheduler/apis/config"
	"k8s.io/kubernetes/pkg/scheduler/apis/config/scheme"
	"k8s.io/kubernetes/pkg/scheduler/apis/config/validation"
	internalcache "k8s.io/kubernetes/pkg/scheduler/backend/cache"
	"k8s.io/kubernetes/pkg/scheduler/profile"
)

// profileOutput is what a profile runs, defaults and multiPoint worked out.
type profileOutput struct {
	Filter     []string         `json:"filter"` // in order
	PostFilter []string         `json:"postFilter"`
	Score      map[string]int32 `json:"score"` // name to weight
}

type profilesOutput struct {
	Profiles map[string]*profileOutput `json:"profiles,omitempty"`
	Error    string                    `json:"error,omitempty"`
}

// judgeProfiles reads a KubeSchedulerConfiguration as kube-scheduler reads its file.
func judgeProfiles(file *json.RawMessage) any {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	profiles, err := profilesOf(ctx, *file)
	if err != nil {
		return &profilesOutput{Error: err.Error()}
	}
	return &profilesOutput{Profiles: profiles}
}

func profilesOf(ctx context.Context, file []byte) (map[string]*profileOutput, error) {
	read, _, err := scheme.Codecs.UniversalDecoder().Decode(file, nil, nil)
	if err != nil {
		return nil, err
	}
	configuration := read.(*config.KubeSchedulerConfiguration)
	if err := validation.ValidateKubeSchedulerConfiguration(configuration); err != nil {
		return nil, err
	}
	client := fake.NewClientset()
	broadcaster := events.NewBroadcaster(&events.EventSinkImpl{Interface: client.EventsV1()})
	made, err := scheduler.New(ctx, client, scheduler.NewInformerFactory(client, 0, nil), nil,
		profile.NewRecorderFactory(broadcaster), scheduler.WithNodeInfoSnapshot(internalcache.NewEmptySnapshot()),
		scheduler.WithProfiles(configuration.Profiles...))
	if err != nil {
		return nil, err
	}
	out := map[string]*profileOutput{}
	for name, framework := range made.Profiles {
		plugins := framework.ListPlugins()
		found := &profileOutput{Filter: []string{}, PostFilter: []string{}, Score: map[string]int32{}}
		for _, plugin := range plugins.Filter.Enabled {
			found.Filter = append(found.Filter, plugin.Name)
		}
		for _, plugin := range plugins.PostFilter.Enabled {
			found.PostFilter = append(found.PostFilter, plugin.Name)
		}
		for _, plugin := range plugins.Score.Enabled {
			found.Score[plugin.Name] = plugin.Weight
		}
		out[name] = found
	}
	return out, nil
}
