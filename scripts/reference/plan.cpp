// Planning with a world model that `pwm deploy checkpoint=... to=onnx` wrote, in C++ alone: the best
// of 64 random plans of five steps, on onnxruntime's C interface.
//
//   g++ -std=c++17 -O2 plan.cpp -I ORT/include -L ORT/lib -lonnxruntime -Wl,-rpath,ORT/lib -o plan
//   ./plan deployed/cheetah-run 17 6
//
// where ORT is an unpacked release of onnxruntime. The arguments are the files' common beginning, and
// the sizes of an observation and of an action. Actions are drawn from [-1, 1]; for a task with other
// bounds, draw within `action.low` and `action.high` of the metadata.

#include <onnxruntime_c_api.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>
#include <vector>

namespace {

const OrtApi* const api = OrtGetApiBase()->GetApi(ORT_API_VERSION);
OrtEnv* environment = nullptr;
OrtMemoryInfo* memory = nullptr;

void check(OrtStatus* status) {
  if (status == nullptr) return;
  std::fprintf(stderr, "%s\n", api->GetErrorMessage(status));
  std::exit(1);
}

// Rows of equal size, one after the other.
struct Rows {
  std::vector<float> values;
  int64_t count, size;
};

// A function of the world model, such as `next`.
class Function {
 public:
  Function(const std::string& path, std::vector<const char*> inputs, const char* output)
      : inputs_(std::move(inputs)), output_(output) {
    OrtSessionOptions* options = nullptr;
    check(api->CreateSessionOptions(&options));
    check(api->SetIntraOpNumThreads(options, 1));
    check(api->CreateSession(environment, path.c_str(), options, &session_));
    api->ReleaseSessionOptions(options);
  }

  Function(const Function&) = delete;

  ~Function() { api->ReleaseSession(session_); }

  Rows operator()(std::vector<Rows*> given) const {
    std::vector<OrtValue*> values;
    for (Rows* rows : given) {
      const std::array<int64_t, 2> shape{rows->count, rows->size};
      values.push_back(nullptr);
      check(api->CreateTensorWithDataAsOrtValue(
          memory, rows->values.data(), rows->values.size() * sizeof(float), shape.data(), 2,
          ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, &values.back()));
    }
    OrtValue* result = nullptr;
    check(api->Run(session_, nullptr, inputs_.data(), values.data(), values.size(), &output_, 1,
                   &result));
    void* data = nullptr;
    size_t length = 0;
    OrtTensorTypeAndShapeInfo* shape = nullptr;
    check(api->GetTensorMutableData(result, &data));
    check(api->GetTensorTypeAndShape(result, &shape));
    check(api->GetTensorShapeElementCount(shape, &length));
    const float* first = static_cast<const float*>(data);
    const int64_t count = given[0]->count;
    Rows rows{{first, first + length}, count, static_cast<int64_t>(length) / count};
    api->ReleaseTensorTypeAndShapeInfo(shape);
    api->ReleaseValue(result);
    for (OrtValue* value : values) api->ReleaseValue(value);
    return rows;
  }

 private:
  std::vector<const char*> inputs_;
  const char* output_;
  OrtSession* session_ = nullptr;
};

}  // namespace

int main(int count, char** words) {
  if (count != 4 || api == nullptr) {
    std::fprintf(stderr, "usage: plan deployed/TASK OBS_DIM ACTION_DIM\n");
    return 2;
  }
  check(api->CreateEnv(ORT_LOGGING_LEVEL_WARNING, "plan", &environment));
  check(api->CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &memory));
  const std::string files = words[1];
  const int64_t obs_dim = std::atoi(words[2]), action_dim = std::atoi(words[3]);
  const Function encode(files + ".encode.onnx", {"obs"}, "latent");
  const Function next(files + ".next.onnx", {"latent", "action"}, "next_latent");
  const Function reward(files + ".reward.onnx", {"latent", "action"}, "reward");

  constexpr int64_t kPlans = 64, kSteps = 5;
  Rows obs{std::vector<float>(obs_dim, 0.0F), 1, obs_dim};
  const Rows start = encode({&obs});
  Rows latent{{}, kPlans, start.size};
  for (int64_t plan = 0; plan < kPlans; ++plan)
    latent.values.insert(latent.values.end(), start.values.begin(), start.values.end());

  std::mt19937 bits(0);
  std::vector<double> returns(kPlans, 0.0);
  for (int64_t step = 0; step < kSteps; ++step) {
    Rows action{std::vector<float>(kPlans * action_dim), kPlans, action_dim};
    for (float& entry : action.values) entry = static_cast<float>(bits() / 2147483648.0 - 1.0);
    const Rows rewards = reward({&latent, &action});
    for (int64_t plan = 0; plan < kPlans; ++plan) returns[plan] += rewards.values[plan];
    latent = next({&latent, &action});
  }
  int64_t best = 0;
  for (int64_t plan = 1; plan < kPlans; ++plan)
    if (returns[plan] > returns[best]) best = plan;
  std::printf("plan %ld returns %.6f\n", static_cast<long>(best), returns[best]);
  api->ReleaseMemoryInfo(memory);
  api->ReleaseEnv(environment);
}
