// A libnvidia-ml.so.1 without a driver: the numbers come from the file $FAKE_NVML_STATE, read at each call.
// Lines of the file: KEY NUMBER, with keys such as 0.util, 0.used, 0.power, 0.temperature, 0.kind and hang.
// A number below 0 is the NVML error code that the call returns. -DNO_POWER leaves nvmlDeviceGetPowerUsage out.
// GPU 9 is a MIG instance, which knows its memory alone.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { OK = 0, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, MIG = 9 };
typedef int Return;
typedef struct device { int number; } *Device;
static struct device devices[10] = {{0}, {1}, {2}, {3}, {4}, {5}, {6}, {7}, {8}, {9}};

static double state(const char *key, double otherwise) {
    const char *path = getenv("FAKE_NVML_STATE");
    FILE *file = path ? fopen(path, "r") : NULL;
    if (!file) return otherwise;
    char name[64];
    double value, found = otherwise;
    while (fscanf(file, "%63s %lf", name, &value) == 2)
        if (!strcmp(name, key)) found = value;
    fclose(file);
    return found;
}

static double of(Device device, const char *key, double otherwise) {
    char name[64];
    while (state("hang", 0) > 0) usleep(10000);
    snprintf(name, sizeof name, "%d.%s", device->number, key);
    return state(name, otherwise);
}

static unsigned count(void) { return (unsigned)state("count", 2); }

Return nvmlInitWithFlags(unsigned flags) {
    (void)flags;
    return (int)-state("init", 0);
}
Return nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
Return nvmlShutdown(void) { return OK; }
const char *nvmlErrorString(Return code) { return code == NOT_SUPPORTED ? "Not Supported" : "Another Error"; }
Return nvmlSystemGetDriverVersion(char *text, unsigned size) { return snprintf(text, size, "580.95.05") < 0; }
Return nvmlSystemGetNVMLVersion(char *text, unsigned size) { return snprintf(text, size, "13.580.95.05") < 0; }
Return nvmlSystemGetCudaDriverVersion_v2(int *version) { return *version = 13000, OK; }
Return nvmlDeviceGetCount_v2(unsigned *number) { return *number = count(), OK; }
Return nvmlDeviceGetHandleByIndex_v2(unsigned index, Device *device) {
    if (index >= count()) return INVALID_ARGUMENT;
    return *device = &devices[index], OK;
}
Return nvmlDeviceGetIndex(Device device, unsigned *index) { return *index = (unsigned)device->number, OK; }

static void uuid(int number, char *text, unsigned size) {
    if (number == MIG) snprintf(text, size, "MIG-9a000000-0000-4000-8000-000000000009");
    else snprintf(text, size, "GPU-%da%06d-0000-4000-8000-000000000000", number, number);
}
Return nvmlDeviceGetUUID(Device device, char *text, unsigned size) { return uuid(device->number, text, size), OK; }
Return nvmlDeviceGetHandleByUUID(const char *wanted, Device *device) {
    char text[96];
    for (int number = 0; number < 10; number++) {
        uuid(number, text, sizeof text);
        if (!strcmp(text, wanted) && (number == MIG || number < (int)count())) return *device = &devices[number], OK;
    }
    return NOT_FOUND;
}
Return nvmlDeviceGetName(Device device, char *text, unsigned size) {
    return snprintf(text, size, of(device, "kind", 0) > 0 ? "NVIDIA Other" : "NVIDIA H200") < 0;
}
Return nvmlDeviceGetMigMode(Device device, unsigned *now, unsigned *later) { return (void)device, *now = *later = 0, OK; }
Return nvmlDeviceGetMaxMigDeviceCount(Device device, unsigned *most) { return (void)device, *most = 0, OK; }

// fail(): the error that the file asks for, or that a MIG instance gives for all but its memory.
static Return fail(Device device, double value) {
    if (value < 0) return (int)-value;
    return device->number == MIG ? NOT_SUPPORTED : OK;
}
typedef struct { unsigned gpu, memory; } Utilization;
Return nvmlDeviceGetUtilizationRates(Device device, Utilization *rates) {
    double value = of(device, "util", 97);
    if (fail(device, value)) return fail(device, value);
    return rates->gpu = (unsigned)value, rates->memory = 41, OK;
}
static Return idle(unsigned *percent, unsigned *period) { return *percent = 0, *period = 100000, OK; }
Return nvmlDeviceGetEncoderUtilization(Device device, unsigned *a, unsigned *b) { return (void)device, idle(a, b); }
Return nvmlDeviceGetDecoderUtilization(Device device, unsigned *a, unsigned *b) { return (void)device, idle(a, b); }
typedef struct { unsigned long long total, free, used; } Memory;
typedef struct { unsigned version; unsigned long long total, reserved, free, used; } Memory2;
Return nvmlDeviceGetMemoryInfo(Device device, Memory *memory) {
    double value = of(device, "used", 70e9);
    if (value < 0) return (int)-value;
    memory->total = (unsigned long long)141e9, memory->used = (unsigned long long)value;
    return memory->free = memory->total - memory->used, OK;
}
#ifndef NO_MEMORY2
Return nvmlDeviceGetMemoryInfo_v2(Device device, Memory2 *memory) {
    Memory old;
    Return code = nvmlDeviceGetMemoryInfo(device, &old);
    if (code) return code;
    memory->total = old.total, memory->reserved = 0, memory->free = old.free, memory->used = old.used;
    return OK;
}
#endif
static Return temperature(Device device, int *degrees) {
    double value = of(device, "temperature", 61);
    if (fail(device, value)) return fail(device, value);
    return *degrees = (int)value, OK;
}
Return nvmlDeviceGetTemperature(Device device, unsigned sensor, unsigned *degrees) {
    return (void)sensor, temperature(device, (int *)degrees);
}
#ifndef NO_TEMPERATURE_V
typedef struct { unsigned version; unsigned sensor; int degrees; } Temperature;
Return nvmlDeviceGetTemperatureV(Device device, Temperature *value) { return temperature(device, &value->degrees); }
#endif
#ifndef NO_POWER
Return nvmlDeviceGetPowerUsage(Device device, unsigned *milliwatts) {
    double value = of(device, "power", 612);
    if (fail(device, value)) return fail(device, value);
    return *milliwatts = (unsigned)(value * 1000), OK;
}
#endif
static Return number(Device device, const char *key, double otherwise, unsigned *out) {
    double value = of(device, key, otherwise);
    if (fail(device, value)) return fail(device, value);
    return *out = (unsigned)value, OK;
}
Return nvmlDeviceGetTotalEccErrors(Device device, unsigned kind, unsigned since, unsigned long long *errors) {
    unsigned found = 0;
    Return code = number(device, kind == 1 && since == 0 ? "uncorrected" : "other_errors", 0, &found);
    return *errors = found, code;
}
Return nvmlDeviceGetRemappedRows(Device device, unsigned *a, unsigned *b, unsigned *pending, unsigned *failure) {
    *a = *b = *failure = 0;
    Return code = number(device, "pending", 0, pending);
    return code ? code : number(device, "failure", 0, failure);
}
Return nvmlDeviceGetRetiredPagesPendingStatus(Device device, unsigned *pending) {
    return number(device, "pages", 0, pending);
}
Return nvmlDeviceGetCurrentClocksThrottleReasons(Device device, unsigned long long *reasons) {
    unsigned found = 0;
    Return code = number(device, "reasons", 4, &found);
    return *reasons = found, code;
}
Return nvmlDeviceGetClockInfo(Device device, unsigned kind, unsigned *mhz) {
    return number(device, kind == 1 ? "clock" : "other_clock", 1755, mhz);
}
Return nvmlDeviceGetMaxClockInfo(Device device, unsigned kind, unsigned *mhz) {
    return number(device, kind == 1 ? "max_clock" : "other_clock", 1980, mhz);
}
